"""Decides which waiting sequences join a step."""

from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.scheduling.sequence_queues import SequenceQueues
from ponder_worker.engine.sequence import Sequence, Urgency
from ponder_worker.engine.step_plan import StepPlan


class Admission:
    """Admits waiting sequences in order of urgency, and keeps the pages free that running ones are expected to need.

    A sequence of higher priority may take the place of a running one of lower priority.
    """

    def __init__(self, queues: SequenceQueues, kv: KVCacheManager, slabs: SlabAllocator, max_sequences: int) -> None:
        self._queues = queues
        self._kv = kv
        self._slabs = slabs
        self._max_sequences = max_sequences

    def fill(self, plan: StepPlan, room: int) -> None:
        """Adds waiting sequences to the plan, `room` tokens of them. Those with nothing to compute are finished."""
        queues, kv = self._queues, self._kv
        reserved = queues.expected_pages()
        while queues.waiting and room > 0:
            sequence = queues.waiting.first
            if sequence.finish_reason is not None:
                plan.finished.append(queues.waiting.pop())
                continue
            if sequence.num_steps_in_flight:  # it was preempted after a step was planned that has not ended yet
                break
            if len(queues.running) >= self._max_sequences or not self._admit(plan, sequence, reserved):
                if not self._make_way(plan, sequence):
                    break
                reserved = queues.expected_pages()
                continue
            start = sequence.num_computed
            end = min(sequence.num_computable, start + room)
            room -= end - start
            plan.chunks.schedule(sequence, start, end, kv.register(sequence, end))
            reserved += queues.expected_pages_of(sequence)

    def _admit(self, plan: StepPlan, sequence: Sequence, reserved: int) -> bool:
        """Starts the first waiting sequence if its pages can be had and `reserved` pages stay free for others."""
        queues, kv = self._queues, self._kv
        if queues.running:  # a sequence that is admitted should not be preempted at once
            reserved += max(0, queues.expected_pages_of(sequence) - 1)
            urgency = sequence.lowest_urgency_of_priority
        else:  # a sequence that waits alone takes slabs even from younger ones of its own priority
            urgency = sequence.urgency
        match = kv.match(sequence)
        if not self._can_get(kv.pages_needed(sequence, match) + reserved, urgency):
            return False
        kv.share(sequence, match)
        while not kv.grow(sequence.table, sequence.num_computable):
            reclaimed = self._slabs.reclaim(kv.pool, urgency)
            assert reclaimed, "admitted without pages"
        kv.fill(sequence, match, plan.transfers)
        queues.start(sequence)
        return True

    def _can_get(self, num_pages: int, urgency: Urgency) -> bool:
        """Returns whether so many pages are free, or can be had from models with less urgent sequences."""
        pool, slabs = self._kv.pool, self._slabs
        num_missing = num_pages - pool.num_free
        return (
            num_missing <= 0
            or num_missing <= slabs.spare_pages(pool)
            or num_missing <= slabs.reclaimable_pages(pool, urgency, num_missing)
        )

    def _make_way(self, plan: StepPlan, sequence: Sequence) -> bool:
        """Preempts a running sequence of lower priority, if there is one that can be taken out of this step."""
        running = self._queues.running
        if not running or running[-1].urgency < sequence.lowest_urgency_of_priority:
            return False
        if running[-1] in plan.chunks.sequences and not self._withdraw(plan, running[-1]):
            return False
        self._queues.preempt_least_urgent()
        return True

    def _withdraw(self, plan: StepPlan, sequence: Sequence) -> bool:
        """Takes a sequence out of the plan, unless others of the step may build on what it was to compute.

        A decoded token that completes no page is safe to take out.
        """
        index = plan.chunks.sequences.index(sequence)
        _, start, end, _, _ = plan.chunks[index]
        if end - start > 1 or end % self._kv.pool.page_size == 0:
            return False
        plan.chunks.withdraw(index)
        return True
