"""Two models in one memory: random lives of their requests, and who gets which slab."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tape import PAGE, Line, Slot, Tape

from ponder_worker.engine.kv.kv_offload import Costs, KVOffload
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Sequence

SLAB_PAGES = (2, 3)


class House:
    """Two lines, of a model whose slabs hold two pages and of one whose slabs hold three."""

    def __init__(self, num_slabs: int, *, max_sequences: int = 8, num_parked: int = 0, ahead: int = 0) -> None:
        slabs: dict[int, dict[Slot, tuple[bytes, tuple[int, ...]]]] = {}
        self.budget = SlabAllocator(num_slabs, lambda slab: slabs.setdefault(slab, {}).clear())
        self.lines = []
        for slab_pages in SLAB_PAGES:
            tape = Tape(slabs, slab_pages)
            scheduler = Scheduler(
                PagePool(num_slabs * slab_pages, PAGE, slab_pages=slab_pages),
                max_step_tokens=32,
                max_sequences=max_sequences,
                budget=self.budget,
                parking=KVOffload(num_parked, Costs(1.0, 0.0), tape.park) if num_parked else None,
                move=tape.copy,
            )
            self.lines.append(Line(scheduler, tape, ahead))
        self.schedulers = [line.scheduler for line in self.lines]

    def owned(self) -> list[int]:
        return [len(scheduler.pool.slabs) for scheduler in self.schedulers]

    def held(self) -> list[int]:
        return [scheduler.pool.num_held for scheduler in self.schedulers]

    def check(self) -> None:
        for scheduler in self.schedulers:
            scheduler.check()

    def finish(self) -> None:
        for _ in range(5000):
            if not any(line.has_work for line in self.lines):
                return
            for line in self.lines:
                line.step()
                self.check()
        raise AssertionError("somebody starves")


class TradeMachine(RuleBasedStateMachine):
    """What a model finds in its pages is compared by the tapes, and that no two write one slab."""

    @initialize(num_slabs=st.integers(4, 9), num_parked=st.sampled_from([0, 4]), ahead=st.integers(0, 1))
    def start(self, num_slabs: int, num_parked: int, ahead: int) -> None:
        self.house = House(num_slabs, max_sequences=4, num_parked=num_parked, ahead=ahead)
        self.requests: list[Sequence] = []

    @rule(which=st.integers(0, 1), chance=st.randoms(use_true_random=False))
    def arrive(self, which: int, chance: random.Random) -> None:
        scheduler = self.house.schedulers[which]
        length = chance.randint(2, scheduler.most_pages * PAGE - 1)
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
            self.house.lines[which].step()

    @precondition(lambda self: any(line.scheduler.running for line in self.house.lines))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        scheduler = data.draw(st.sampled_from([s for s in self.house.schedulers if s.running]))
        scheduler.cancel(data.draw(st.sampled_from(scheduler.running)))

    @invariant()
    def every_page_and_every_slab_has_its_owner(self) -> None:
        if hasattr(self, "house"):
            self.house.check()

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.house.finish()
            assert all(sequence.finish_reason for sequence in self.requests)


TestTrade = TradeMachine.TestCase
TestTrade.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def fill(scheduler: Scheduler, count: int, length: int, *, first: int = 0) -> list[Sequence]:
    """Requests that have nothing in common, three tokens of prompt each."""
    sequences = [Sequence([100 + first + index] * 3, 3, SamplingParams(length - 3)) for index in range(count)]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def test_the_split_follows_the_load_when_it_swings_and_both_finish() -> None:
    house = House(12)
    generator, reward = house.schedulers
    shares = []
    for swing in range(4):
        line = house.lines[swing % 2]
        fill(line.scheduler, 6, 14, first=10 * swing)
        line.finish()
        shares.append(house.owned()[swing % 2])
        house.check()
    assert min(shares) > 12 // 2
    assert generator.counters.num_preemptions == reward.counters.num_preemptions == 0


def test_a_model_that_has_nothing_gets_its_floor_from_one_that_has_everything() -> None:
    house = House(8)
    generator, reward = house.schedulers
    old = fill(generator, 4, 16)
    for _ in range(12):
        house.lines[0].step()
    assert house.owned() == [8, 0]
    fill(reward, 4, 12, first=50)
    for _ in range(6):
        house.lines[1].step()
    assert house.owned()[1] == house.budget.floor == 2
    assert generator.counters.num_preemptions > 0
    house.finish()
    assert [len(sequence.tokens) for sequence in old] == [16] * 4


def test_above_its_floor_a_model_gives_way_to_whom_is_older() -> None:
    house = House(8)
    generator, reward = house.schedulers
    old = fill(generator, 1, 6 * 2 * PAGE)
    house.lines[0].step()
    fill(reward, 8, 12, first=50)
    for _ in range(8):
        house.lines[1].step()
    assert house.owned()[1] > house.budget.floor
    house.lines[0].finish()
    assert old[0].finish_reason == "length"
    assert generator.counters.num_preemptions == 0
    assert reward.counters.num_preemptions > 0
    house.finish()
