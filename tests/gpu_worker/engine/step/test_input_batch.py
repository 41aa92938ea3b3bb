"""The inputs of a step, updated from step to step, against their definition."""

import random
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import PAGE, Tape, TapeEngine

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step.input_batch import InputBatch, Integers
from ponder_worker.engine.step_plan import Chunks, StepPlan, StepResult

FIRST_PLACE = 100


def places(pages: Integers) -> Integers:
    return pages + FIRST_PLACE


class InputCheckingTape(Tape):
    """Compares the inputs of every step with their definition before it runs."""

    def __init__(self, windows: tuple[int | None, ...] = (None,)) -> None:
        super().__init__(windows=windows)
        self.num_continuing = 0
        self._batch = InputBatch(PAGE, places, [[None]] * len(windows))

    def run(self, plan: StepPlan) -> StepResult:
        if plan.chunks:
            self._compare(plan.chunks)
        return super().run(plan)

    def _compare(self, chunks: Chunks) -> None:
        inputs = self._batch.update(chunks)
        self.num_continuing += inputs.continues
        num_groups = len(self._windows)
        read = np.zeros(len(chunks))
        for group in range(num_groups):
            table, slots = (
                (inputs.table, inputs.slots) if num_groups == 1 else (inputs.table[group], inputs.slots[group])
            )
            read += self._compare_group(chunks, group, table, slots) / num_groups
        assert inputs.tokens_read == pytest.approx(read)
        positions = [position for chunk in chunks for position in range(chunk.start, chunk.end)]
        assert inputs.positions.tolist() == positions
        assert inputs.ends.tolist() == chunks.ends
        assert inputs.row_ends.tolist() == np.cumsum(inputs.lengths).tolist()

    def _compare_group(
        self, chunks: Chunks, group: int, table: Integers, found_slots: Integers
    ) -> npt.NDArray[np.float64]:
        """Returns how many tokens each chunk reads in a layer of the group."""
        readers = Counter(page for sequence in chunks.sequences for page in sequence.tables[group].held)
        read, slots = [], []
        for index, (sequence, start, end, write_from, _) in enumerate(chunks):
            pages = [int(page) for page in sequence.tables[group].pages]
            used = pages[: -(-end // PAGE)]
            assert table[index, : len(used)].tolist() == [page + FIRST_PLACE for page in used]
            held = list(enumerate(used))[sequence.tables[group].num_dropped :]
            read.append(sum(min(PAGE, end - place * PAGE) / readers[page] for place, page in held))
            for position in range(start, end):
                slot = (pages[position // PAGE] + FIRST_PLACE) * PAGE + position % PAGE
                slots.append(slot if position >= write_from else -1)
        assert found_slots.tolist() == slots
        return np.array(read)


def request(chance: random.Random) -> Sequence:
    prompt = [chance.randint(0, 1)] * chance.randint(1, 3 * PAGE)
    if chance.random() < 0.3:
        return Sequence([*prompt, *[1] * chance.randint(1, 2 * PAGE)], len(prompt), None)
    return Sequence(prompt, len(prompt), SamplingParams(chance.randint(1, 4 * PAGE)))


@settings(max_examples=200, deadline=None)
@given(
    chance=st.randoms(use_true_random=False),
    num_pages=st.sampled_from([10, 14, 100]),
    step_tokens=st.sampled_from([4, 7, 64]),
    num_steps_ahead=st.integers(0, 1),
    windows=st.sampled_from([(None,), (1,), (6,), (4, 4, None)]),
)
def test_every_step_is_what_its_chunks_say_whatever_the_step_before_was(
    chance: random.Random, num_pages: int, step_tokens: int, num_steps_ahead: int, windows: tuple[int | None, ...]
) -> None:
    pool = PagePool(num_pages * len(windows), PAGE)
    scheduler = Scheduler(pool, max_step_tokens=step_tokens, max_sequences=4, windows=windows)
    engine = TapeEngine(scheduler, InputCheckingTape(windows), num_steps_ahead)
    for _ in range(3):
        for _ in range(chance.randint(1, 4)):
            scheduler.add(request(chance))
        for _ in range(chance.randint(1, 30)):
            engine.step()
    engine.finish()


def test_siblings_that_only_decode_go_on_from_step_to_step() -> None:
    scheduler, watch = Scheduler(PagePool(64, PAGE), max_step_tokens=32, max_sequences=4), InputCheckingTape()
    for _ in range(4):
        scheduler.add(Sequence([1] * 9, 9, SamplingParams(20)))
    TapeEngine(scheduler, watch).finish()
    assert watch.num_continuing == 19


def test_a_page_that_was_given_another_number_is_looked_up_again() -> None:
    pool = PagePool(8, PAGE)
    sequence = Sequence([1] * 5, 5, SamplingParams(4))
    assert pool.grow(sequence.table, 8)
    batch = InputBatch(PAGE, places)
    for start, second in ((5, sequence.table.pages[1]), (6, 7)):
        names = np.arange(8, dtype=np.int32)
        names[sequence.table.pages[1]] = second
        sequence.table.renumber(names)
        chunks = Chunks()
        chunks.schedule(sequence, start, start + 1, 0)
        assert batch.update(chunks).table[0, 1] == second + FIRST_PLACE


def test_a_layer_with_a_window_reads_the_pages_of_the_window_only() -> None:
    """Three of four layers look back on 8 tokens. A prompt of 20 tokens is read whole, then some are decoded."""
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=32, max_sequences=1)
    batch, tape = InputBatch(PAGE, places, [(8, 8, None, 8)]), Tape()
    scheduler.add(Sequence([1] * 20, 20, SamplingParams(4)))
    read = []
    for _ in range(4):
        plan = scheduler.plan()
        read.append(batch.update(plan.chunks).tokens_read.tolist())
        scheduler.commit(plan, tape.run(plan))
    window = 9  # tokens 13 to 20, and 12, which is in the page of 13
    assert read == [[20.0], *([(3 * window + end) / 4] for end in (21, 22, 23))]
