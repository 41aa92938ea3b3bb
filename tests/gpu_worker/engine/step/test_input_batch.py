"""The inputs of a step, updated from step to step, against their definition."""

import random
from collections import Counter

import numpy as np
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

    def __init__(self) -> None:
        super().__init__()
        self.num_continuing = 0
        self._batch = InputBatch(PAGE, places)

    def run(self, plan: StepPlan) -> StepResult:
        if plan.chunks:
            self._compare(plan.chunks)
        return super().run(plan)

    def _compare(self, chunks: Chunks) -> None:
        inputs = self._batch.update(chunks)
        self.num_continuing += inputs.continues
        readers = Counter(page for sequence in chunks.sequences for page in sequence.table.pages)
        positions, slots = [], []
        for index, (sequence, start, end, write_from, _) in enumerate(chunks):
            pages = [int(page) for page in sequence.table.pages]
            used = pages[: -(-end // PAGE)]
            assert inputs.table[index, : len(used)].tolist() == [page + FIRST_PLACE for page in used]
            tokens = [min(PAGE, end - place * PAGE) / readers[page] for place, page in enumerate(used)]
            assert inputs.tokens_read[index] == pytest.approx(sum(tokens))
            for position in range(start, end):
                positions.append(position)
                slot = (pages[position // PAGE] + FIRST_PLACE) * PAGE + position % PAGE
                slots.append(slot if position >= write_from else -1)
        assert inputs.positions.tolist() == positions
        assert inputs.slots.tolist() == slots
        assert inputs.ends.tolist() == chunks.ends
        assert inputs.row_ends.tolist() == np.cumsum(inputs.lengths).tolist()


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
)
def test_every_step_is_what_its_chunks_say_whatever_the_step_before_was(
    chance: random.Random, num_pages: int, step_tokens: int, num_steps_ahead: int
) -> None:
    scheduler = Scheduler(PagePool(num_pages, PAGE), max_step_tokens=step_tokens, max_sequences=4)
    engine = TapeEngine(scheduler, InputCheckingTape(), num_steps_ahead)
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
