"""Random lives of requests over a runner that computes nothing: it keeps, for each slot of each page, the tokens that
its keys and values would depend on, and looks whether every chunk finds its whole context.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.engine.pages import PagePool
from ponder_worker.engine.sampling import Sampling
from ponder_worker.engine.scheduler import Plan, Result, Scheduler
from ponder_worker.engine.sequence import Sequence

PAGE = 4


class Tape:
    """slots: (page, offset) -> the salt and all tokens up to the one written there"""

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], tuple[bytes, tuple[int, ...]]] = {}

    def run(self, plan: Plan) -> Result:
        written = set()
        for chunk in plan.chunks:
            sequence = chunk.sequence
            for position in range(max(chunk.start, chunk.write_from), chunk.end):
                slot = (sequence.table.pages[position // PAGE], position % PAGE)
                assert slot not in written, "two tokens of a step write one slot"
                written.add(slot)
                self.slots[slot] = (sequence.table.salt, tuple(sequence.tokens[: position + 1]))
        tokens: list[int | None] = []
        logprobs: list[list[float]] = []
        for chunk in plan.chunks:
            sequence = chunk.sequence
            for position in range(chunk.end):
                found = self.slots[sequence.table.pages[position // PAGE], position % PAGE]
                assert found == (sequence.table.salt, tuple(sequence.tokens[: position + 1]))
            ends = sequence.sampling is not None and chunk.end == len(sequence.tokens)
            tokens.append(sum(sequence.tokens) % 2 if ends else None)
            scored = chunk.end - max(chunk.start, sequence.first_needed) if sequence.sampling is None else int(ends)
            logprobs.append([-1.0] * max(0, scored))
        return Result(tokens, logprobs, [0.0] * len(plan.chunks))


def request(chance: random.Random, num_pages: int) -> Sequence:
    length = chance.randint(2, num_pages * PAGE - 1)
    prompt = [chance.randint(0, 1) for _ in range(chance.randint(1, length - 1))]
    salt = chance.choice([b"", b"", b"salt"])
    if chance.random() < 0.3:
        tokens = prompt + [1] * (length - len(prompt))
        return Sequence(tokens, chance.randint(1, length - 1), None, salt=salt)
    return Sequence(prompt, len(prompt), Sampling(length - len(prompt)), salt=salt)


@settings(max_examples=150, deadline=None)
@given(
    chance=st.randoms(use_true_random=False),
    num_pages=st.integers(1, 12),
    max_sequences=st.integers(1, 6),
    spare=st.integers(0, 12),
)
def test_every_request_finishes_and_finds_its_whole_context_at_every_step(
    chance: random.Random, num_pages: int, max_sequences: int, spare: int
) -> None:
    budget = max_sequences + spare
    scheduler = Scheduler(PagePool(num_pages, PAGE), max_step_tokens=budget, max_sequences=max_sequences)
    tape, requests = Tape(), [request(chance, num_pages) for _ in range(chance.randint(1, 12))]
    arriving = list(requests)
    cancelled: list[Sequence] = []
    for _ in range(3000):
        while arriving and chance.random() < 0.5:
            scheduler.add(arriving.pop())
        if scheduler.running and chance.random() < 0.03:
            cancelled.append(chance.choice(scheduler.running))
            scheduler.cancel(cancelled[-1])
        plan = scheduler.plan()
        scheduler.check()
        assert sum(chunk.end - chunk.start for chunk in plan.chunks) <= budget
        assert len({id(chunk.sequence) for chunk in plan.chunks}) == len(plan.chunks) <= max_sequences
        scheduler.commit(plan, tape.run(plan))
        scheduler.check()
        if not (arriving or scheduler.running or scheduler.waiting):
            break
    assert all(sequence.finish_reason is not None for sequence in requests), "somebody starved"
    assert scheduler.pool.num_free == num_pages
    for sequence in requests:
        if sequence.finish_reason == "scored":
            assert len(sequence.logprobs) == len(sequence.tokens) - sequence.prompt_length
        elif sequence not in cancelled:
            assert sequence.sampling is not None
            assert len(sequence.generated) == sequence.sampling.max_tokens


def test_the_youngest_is_preempted_and_the_oldest_never() -> None:
    scheduler = Scheduler(PagePool(6, PAGE), max_step_tokens=16, max_sequences=3)
    tape = Tape()
    sequences = [Sequence([index] * 3, 3, Sampling(20)) for index in (1, 2, 3)]
    for sequence in sequences:
        scheduler.add(sequence)
    finished: list[Sequence] = []
    for _ in range(200):
        plan = scheduler.plan()
        scheduler.commit(plan, tape.run(plan))
        finished += [sequence for sequence in sequences if sequence.finish_reason and sequence not in finished]
    assert finished == sequences
    assert scheduler.counters.num_preemptions > 0
    assert sequences[0].num_computed_once == 22
    assert scheduler.counters.recomputed_tokens == scheduler.counters.computed_tokens - 3 * 22


@pytest.mark.parametrize("budget", [4, 8, 64])
def test_siblings_of_a_chunked_prompt_compute_it_once(budget: int) -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=budget, max_sequences=4)
    tape = Tape()
    for _ in range(4):
        scheduler.add(Sequence([1, 2, 3] * 13, 39, Sampling(1)))
    while scheduler.running or scheduler.waiting:
        plan = scheduler.plan()
        scheduler.commit(plan, tape.run(plan))
    assert scheduler.counters.computed_tokens == 39 + 3 * 3


def test_a_page_that_others_filled_is_read_and_not_written_again() -> None:
    scheduler = Scheduler(PagePool(8, PAGE), max_step_tokens=32, max_sequences=2)
    for _ in range(2):
        scheduler.add(Sequence([1, 2] * PAGE, 2 * PAGE, Sampling(1)))
    first, second = scheduler.plan().chunks
    assert (first.start, first.end, first.write_from) == (0, 8, 0)
    assert (second.start, second.end, second.write_from) == (7, 8, 8)
