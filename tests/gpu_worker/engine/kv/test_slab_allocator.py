"""Two models in one memory: which of them gets which slab, through random lives of their requests."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tape import PAGE, Content, Slot, Tape, TapeEngine

from ponder_worker.engine.kv.kv_offload import KVOffload, OffloadCosts
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Sequence

SLAB_PAGES = (2, 3)


class TwoModels:
    """Two engines in one memory. A slab holds two pages of the first and three pages of the second."""

    def __init__(
        self,
        num_slabs: int,
        *,
        max_sequences: int = 8,
        num_offloaded: int = 0,
        num_steps_ahead: int = 0,
        windows: tuple[tuple[int | None, ...], tuple[int | None, ...]] = ((None,), (None,)),
    ) -> None:
        contents: dict[int, dict[Slot, Content]] = {}
        self.allocator = SlabAllocator(num_slabs, lambda slab: contents.setdefault(slab, {}).clear())
        self.engines = []
        for slab_pages, of_model in zip(SLAB_PAGES, windows, strict=True):
            tape = Tape(contents, slab_pages, of_model)
            scheduler = Scheduler(
                PagePool(num_slabs * slab_pages, PAGE, slab_pages=slab_pages, copy=tape.copy),
                max_step_tokens=32,
                max_sequences=max_sequences,
                slabs=self.allocator,
                offload=KVOffload(num_offloaded, OffloadCosts(1.0, 0.0), tape.offload) if num_offloaded else None,
                windows=of_model,
            )
            self.engines.append(TapeEngine(scheduler, tape, num_steps_ahead))
        self.schedulers = [engine.scheduler for engine in self.engines]

    def owned(self) -> list[int]:
        return [len(scheduler.pool.slabs) for scheduler in self.schedulers]

    def held(self) -> list[int]:
        return [scheduler.pool.num_held for scheduler in self.schedulers]

    def check(self) -> None:
        for scheduler in self.schedulers:
            scheduler.check()

    def finish(self) -> None:
        for _ in range(5000):
            if not any(engine.has_work for engine in self.engines):
                return
            for engine in self.engines:
                engine.step()
                self.check()
        raise AssertionError("a sequence starves")


class TradeMachine(RuleBasedStateMachine):
    """The tapes assert that each model finds its own numbers in its pages, and that no two models write one slab."""

    @initialize(
        num_slabs=st.integers(4, 9),
        num_offloaded=st.sampled_from([0, 4]),
        num_steps_ahead=st.integers(0, 1),
        windows=st.sampled_from(
            [
                ((None,), (None,)),
                ((3,), (None,)),
                ((None,), (6,)),
                ((2,), (2,)),
                ((3, None), (None,)),
                ((None,), (5, 5, None)),
            ]
        ),
    )
    def start(
        self,
        num_slabs: int,
        num_offloaded: int,
        num_steps_ahead: int,
        windows: tuple[tuple[int | None, ...], tuple[int | None, ...]],
    ) -> None:
        self.models = TwoModels(
            num_slabs,
            max_sequences=4,
            num_offloaded=num_offloaded,
            num_steps_ahead=num_steps_ahead,
            windows=windows,
        )
        self.requests: list[Sequence] = []

    @rule(which=st.integers(0, 1), chance=st.randoms(use_true_random=False))
    def arrive(self, which: int, chance: random.Random) -> None:
        scheduler = self.models.schedulers[which]
        length = chance.randint(2, min(scheduler.max_pages, 30) * PAGE - 1)
        prompt = [chance.randint(0, 1) for _ in range(chance.randint(1, length - 1))]
        if chance.random() < 0.3:
            sequence = Sequence(prompt + [1] * (length - len(prompt)), len(prompt), None)
        else:
            stops = frozenset({1} if chance.random() < 0.2 else ())
            sequence = Sequence(prompt, len(prompt), SamplingParams(length - len(prompt)), stop_token_ids=stops)
        scheduler.add(sequence)
        self.requests.append(sequence)

    @rule(which=st.integers(0, 1), count=st.integers(1, 6))
    def step(self, which: int, count: int) -> None:
        for _ in range(count):
            self.models.engines[which].step()

    @precondition(lambda self: any(engine.scheduler.running for engine in self.models.engines))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        scheduler = data.draw(st.sampled_from([s for s in self.models.schedulers if s.running]))
        scheduler.cancel(data.draw(st.sampled_from(scheduler.running)))

    @invariant()
    def every_page_and_every_slab_has_its_owner(self) -> None:
        if hasattr(self, "models"):
            self.models.check()

    def teardown(self) -> None:
        if hasattr(self, "models"):
            self.models.finish()
            assert all(sequence.finish_reason for sequence in self.requests)


TestTrade = TradeMachine.TestCase
TestTrade.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def fill(scheduler: Scheduler, count: int, length: int, *, first: int = 0) -> list[Sequence]:
    """Adds requests that have nothing in common, with three tokens of prompt each."""
    sequences = [Sequence([100 + first + index] * 3, 3, SamplingParams(length - 3)) for index in range(count)]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def test_the_split_follows_the_load_when_it_swings_and_both_finish() -> None:
    models = TwoModels(12)
    generator, reward = models.schedulers
    shares = []
    for swing in range(4):
        engine = models.engines[swing % 2]
        fill(engine.scheduler, 6, 14, first=10 * swing)
        engine.finish()
        shares.append(models.owned()[swing % 2])
        models.check()
    assert min(shares) > 12 // 2
    assert generator.counters.num_preemptions == reward.counters.num_preemptions == 0


def test_a_slab_that_nobody_owns_is_taken_before_a_page_that_can_be_found_is_evicted() -> None:
    models = TwoModels(8)
    for first in (0, 10, 20):
        fill(models.schedulers[0], 1, 2 * PAGE, first=first)
        models.engines[0].finish()
    assert models.schedulers[0].pool.prefixes.num_evicted == 0
    assert models.owned() == [3, 0]


def test_a_model_that_has_nothing_gets_its_guarantee_from_one_that_has_everything() -> None:
    models = TwoModels(8)
    generator, reward = models.schedulers
    old = fill(generator, 4, 16)
    for _ in range(12):
        models.engines[0].step()
    assert models.owned() == [8, 0]
    fill(reward, 4, 12, first=50)
    for _ in range(6):
        models.engines[1].step()
    assert models.owned()[1] == models.allocator.num_guaranteed == 2
    assert generator.counters.num_preemptions > 0
    models.finish()
    assert [len(sequence.tokens) for sequence in old] == [16] * 4


def test_above_its_guarantee_a_model_gives_way_to_older_sequences_of_the_other() -> None:
    models = TwoModels(8)
    generator, reward = models.schedulers
    old = fill(generator, 1, 6 * 2 * PAGE)
    models.engines[0].step()
    fill(reward, 8, 12, first=50)
    for _ in range(8):
        models.engines[1].step()
    assert models.owned()[1] > models.allocator.num_guaranteed
    models.engines[0].finish()
    assert old[0].finish_reason == "length"
    assert generator.counters.num_preemptions == 0
    assert reward.counters.num_preemptions > 0
    models.finish()


def test_a_model_can_get_all_slabs_but_those_that_the_other_is_guaranteed() -> None:
    models = TwoModels(8)
    assert [scheduler.max_pages for scheduler in models.schedulers] == [6 * slab_pages for slab_pages in SLAB_PAGES]
    fill(models.schedulers[0], 1, 6 * 2 * PAGE)
    fill(models.schedulers[1], 1, 6 * 3 * PAGE, first=50)
    models.finish()
