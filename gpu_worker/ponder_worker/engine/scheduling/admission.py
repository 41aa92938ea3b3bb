"""Who of the waiting is let in."""

from bisect import insort
from collections.abc import MutableSequence
from typing import Protocol

from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager
from ponder_worker.engine.kv.slab_allocator import SlabOwner
from ponder_worker.engine.scheduling.length_estimate import LengthEstimate
from ponder_worker.engine.scheduling.step_plan import Plan
from ponder_worker.engine.scheduling.waiting_queue import Queue, lower, urgency
from ponder_worker.engine.sequence import Sequence


class Steps(SlabOwner, Protocol):
    """The scheduler, as far as it is needed here."""

    @property
    def waiting(self) -> Queue: ...

    @property
    def running(self) -> MutableSequence[Sequence]: ...

    def schedule(self, plan: Plan, sequence: Sequence, start: int, end: int) -> None: ...


class Admission:
    """In order of urgency, when what those running are expected still to need leaves room."""

    def __init__(self, steps: Steps, holdings: KVCacheManager, expectation: LengthEstimate, max_sequences: int) -> None:
        self._steps = steps
        self._holdings = holdings
        self._expectation = expectation
        self._max_sequences = max_sequences

    def fill(self, plan: Plan, room: int) -> None:
        """The rest of the step, `room` tokens, from the waiting; who has nothing to compute is finished."""
        steps = self._steps
        kept = steps.expected_pages()
        while steps.waiting and room > 0:
            sequence = steps.waiting.first
            if sequence.finish_reason is not None:
                plan.finished.append(steps.waiting.pop())
                continue
            if sequence.num_underway:  # preempted in a step that has not ended yet
                break
            if len(steps.running) >= self._max_sequences or not self._let_in(plan, sequence, kept):
                if not self._make_way(plan, sequence):
                    break
                kept = steps.expected_pages()
                continue
            start = sequence.num_computed
            end = min(sequence.num_wanted, start + room)
            room -= end - start
            steps.schedule(plan, sequence, start, end)
            kept += self._expectation.pages(sequence, steps.pool)

    def _let_in(self, plan: Plan, sequence: Sequence, kept: int) -> bool:
        """The first of the waiting runs if its pages are there, beside the `kept` ones that others will want."""
        steps, rank = self._steps, lower(sequence)
        if steps.running:  # who is let in is not to be preempted at once
            kept += max(0, self._expectation.pages(sequence, steps.pool) - 1)
        else:  # who waits alone for those elsewhere has his turn when he is the oldest
            rank = urgency(sequence)
        if not self._holdings.enter(plan, sequence, kept, rank):
            return False
        steps.waiting.pop()
        insort(steps.running, sequence, key=urgency)
        return True

    def _make_way(self, plan: Plan, sequence: Sequence) -> bool:
        """Preempts a sequence of lower priority that this step does not compute yet, or takes it out of the step."""
        steps = self._steps
        last = steps.running[-1] if steps.running else None
        if last is None or urgency(last) < lower(sequence):
            return False
        if last in plan.chunks.sequences and not self._withdraw(plan, last):
            return False
        steps.preempt_youngest()
        return True

    def _withdraw(self, plan: Plan, sequence: Sequence) -> bool:
        """Takes it out of the step if it decodes and fills no page: else others may build on what it computes."""
        index = plan.chunks.sequences.index(sequence)
        _, start, end, _, samples = plan.chunks[index]
        if end - start > 1 or end % self._steps.pool.page_size == 0:
            return False
        del plan.chunks[index]
        sequence.num_computed = start
        sequence.num_underway -= 1
        sequence.num_pending -= samples
        return True
