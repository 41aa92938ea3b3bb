"""Decides which tokens the next step computes."""

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager
from ponder_worker.engine.kv.kv_offload import KVOffload
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.scheduling.sequence_admission import Admission
from ponder_worker.engine.scheduling.sequence_queues import SequenceQueues
from ponder_worker.engine.scheduling.waiting_queue import WaitingQueue
from ponder_worker.engine.sequence import Priority, Sequence
from ponder_worker.engine.step_plan import Output, Row, StepPlan, StepResult, outputs_of


class Scheduler:
    """Serves sequences by priority, then in order of arrival.

    There is no prefill phase and no decode phase: in each step every sequence's computed tokens catch up with its known
    ones, under one budget of tokens. When pages run out, the least urgent sequence releases its own and goes on later;
    what they held is saved in host memory or computed again. Two plans may be made before the first is committed.
    """

    def __init__(
        self,
        pool: PagePool,
        *,
        max_step_tokens: int,
        max_sequences: int,
        slabs: SlabAllocator | None = None,
        offload: KVOffload | None = None,
    ) -> None:
        """Makes a scheduler of one pool. slabs: gives the pool its slabs; None if the pool owns all its pages."""
        self.pool = pool
        self.counters = Counters()
        self._max_step_tokens = max_step_tokens
        self._slabs = slabs or SlabAllocator()
        self._kv = KVCacheManager(pool, self._slabs, offload, self.counters)
        self._queues = SequenceQueues(self._kv, self.counters)
        self._slabs.join(self._queues)
        self._admission = Admission(self._queues, self._kv, self._slabs, max_sequences)

    @property
    def running(self) -> list[Sequence]:
        return self._queues.running

    @property
    def waiting(self) -> WaitingQueue:
        return self._queues.waiting

    @property
    def num_free(self) -> int:
        """Pages that can be had without preempting any sequence."""
        return self.pool.num_free + self._slabs.spare_pages(self.pool)

    @property
    def max_pages(self) -> int:
        """The most pages that one sequence can have."""
        return self._slabs.max_pages(self.pool)

    def add(self, sequence: Sequence) -> None:
        sequence.arrival = next(self._slabs.arrivals)
        self.waiting.append(sequence)
        self.counters.prompt_tokens += sequence.prompt_length

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence. Its pages are released when the next step is planned."""
        self._queues.cancel(sequence)

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        """Changes the priority of a sequence, which keeps its arrival, its pages and its part in a planned step."""
        self._queues.promote(sequence, priority)

    def plan(self) -> StepPlan:
        """Plans the next step: running sequences first, then waiting ones.

        Pages are held and registered here, so that sequences of one step find each other's prefixes.
        """
        self._kv.begin_step()
        self._queues.drop_cancelled()
        plan = StepPlan()
        num_preemptions = self.counters.num_preemptions
        room = self._continue_running(plan)
        if self.waiting and self.counters.num_preemptions == num_preemptions:
            self._admission.fill(plan, room)
        return plan

    def commit(self, plan: StepPlan, result: StepResult) -> list[Output]:
        """Adds a step's results to its sequences. Finished ones release their pages.

        Returns one output for each sequence that had not ended before.
        """
        counters, chunks, kv = self.counters, plan.chunks, self._kv
        counters.num_steps += 1
        counters.computed_tokens += sum(chunks.ends) - sum(chunks.starts)
        rows: list[Row] = [(sequence, [], [], sequence.finish_reason, 0, 0, 0.0) for sequence in plan.finished]
        for sequence, start, end, samples, token, values, kv_bytes in zip(
            chunks.sequences, chunks.starts, chunks.ends, chunks.samples,
            result.tokens, result.logprobs, result.kv_bytes_read, strict=True,
        ):  # fmt: skip
            length = end - start
            sequence.num_steps_in_flight -= 1
            sequence.num_tokens_in_flight -= samples
            if sequence.finish_reason is not None:  # it ended, or was cancelled, in the step before
                counters.wasted_tokens += length
                continue
            if length > 1 and sequence.table.pages:  # the last page of a prompt, which later siblings copy
                kv.register_partial(sequence, end)
            most_computed = sequence.most_computed
            if start < most_computed:
                counters.recomputed_tokens += min(end, most_computed) - start
            if end > most_computed:
                sequence.most_computed = end
            if token is not None:
                sequence.append(token, values[0])
                counters.generated_tokens += 1
            elif values:
                sequence.take_scores(values)
                counters.scored_tokens += len(values)
                if end == sequence.num_computable:  # the last position is always one that is scored
                    sequence.finish_reason = "scored"
            reason = sequence.finish_reason
            rows.append((sequence, [] if token is None else [token], values, reason, start, length, kv_bytes))
            if reason is not None:
                self._queues.finish(sequence)
        return outputs_of(rows)

    def check(self) -> None:
        """Raises AssertionError unless every slab and every page is free, or held by exactly those that name it."""
        self._slabs.check()
        self._kv.check([*self.running, *self.waiting])

    def _continue_running(self, plan: StepPlan) -> int:
        """Adds the running sequences to the plan. Returns how many tokens are left for waiting ones."""
        running, kv, schedule = self._queues.running, self._kv, plan.chunks.schedule
        page_size = self.pool.page_size
        room = self._max_step_tokens
        for index, sequence in enumerate(running):  # preemption may shorten the list from its end meanwhile
            start, end = sequence.num_computed, sequence.num_computable
            if end <= start:
                continue
            if end > start + 1:  # a token is kept for each sequence behind: a long prefill never stalls decoding
                end = min(end, start + room - (len(running) - index - 1))
            if end > len(sequence.table.pages) * page_size and not self._grow(sequence, end):
                break
            schedule(sequence, start, end, kv.register(sequence, end))
            room -= end - start
        return room

    def _grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Gets pages for so many tokens, by preemption if need be. Returns False if that hits the sequence itself."""
        while not self._kv.grow(sequence.table, num_tokens):
            if self._slabs.reclaim(self.pool, self.running[-1].urgency):
                continue
            if self._queues.preempt_least_urgent() is sequence:
                return False
        return True
