"""Decides which tokens the next step computes."""

from collections.abc import Sequence as Series

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager
from ponder_worker.engine.kv.kv_offload import KVOffload
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.scheduling.sequence_queues import SequenceQueues
from ponder_worker.engine.scheduling.step_size import StepSize
from ponder_worker.engine.scheduling.waiting_queue import WaitingQueue
from ponder_worker.engine.sequence import Priority, Sequence, Urgency
from ponder_worker.engine.step_plan import Output, Row, StepPlan, StepResult, outputs_of


class Scheduler:
    """Serves sequences by priority, then family by family, then in order of arrival.

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
        windows: Series[int | None] = (None,),
    ) -> None:
        """Makes a scheduler of one pool. slabs: gives the pool its slabs; None if the pool owns all its pages.

        windows: the tokens that each group of layers looks back on, or None for all; those with a window come first.
        """
        self.pool = pool
        self.counters = Counters()
        self.step_size = StepSize(max_step_tokens)
        self._max_sequences = max_sequences
        self._slabs = slabs or SlabAllocator()
        self._kv = KVCacheManager(
            pool, self._slabs, offload, self.counters, windows=windows, max_step_tokens=max_step_tokens
        )
        self._queues = SequenceQueues(self._kv, self.counters)
        self._slabs.join(self._queues)

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
        """The pages of tokens that the longest sequence can have."""
        return self._kv.longest(self._slabs.max_pages(self.pool))

    def add(self, sequence: Sequence) -> None:
        sequence.arrival = next(self._slabs.arrivals)
        self._kv.open(sequence)
        self.waiting.insert(sequence)
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
            self._admit_waiting(plan, room)
        return plan

    def commit(self, plan: StepPlan, result: StepResult) -> list[Output]:
        """Adds a step's results to its sequences. Finished ones release their pages.

        Returns one output for each sequence that had not ended before.
        """
        counters, chunks, kv = self.counters, plan.chunks, self._kv
        counters.num_steps += 1
        counters.computed_tokens += chunks.num_tokens
        for index, top in result.tops.items():
            if chunks.sequences[index].finish_reason is None:
                chunks.sequences[index].top_logprobs.append(top)
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
        room = self.step_size.room(len(running))
        for index, sequence in enumerate(running):  # preemption may shorten the list from its end meanwhile
            start, end = sequence.num_computed, sequence.num_computable
            if end <= start:
                continue
            kv.trim(sequence)
            if end > start + 1:  # a token is kept for each sequence behind: a long prefill never stalls decoding
                end = min(end, start + room - (len(running) - index - 1))
            if end > len(sequence.table.pages) * page_size and not self._grow(sequence, end):
                break
            schedule(sequence, start, end, kv.register(sequence, end))
            room -= end - start
        return room

    def _grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Gets pages for so many tokens, by preemption if need be. Returns False if that hits the sequence itself."""
        while not self._kv.grow(sequence, num_tokens):
            if self._slabs.reclaim(self.pool, self.running[-1].urgency):
                continue
            if self._queues.preempt_least_urgent() is sequence:
                return False
        return True

    def _admit_waiting(self, plan: StepPlan, room: int) -> None:
        """Adds waiting sequences to the plan, `room` tokens of them. Those with nothing to compute are finished.

        They are admitted in order of urgency, and the pages stay free that running ones are expected to need. A
        sequence of higher priority may take the place of a running one of lower priority.
        """
        queues, kv = self._queues, self._kv
        # Running sequences stay, even if there are now more of them than tokens in a step.
        most_running = min(self._max_sequences, max(self.step_size.num_tokens, len(queues.running)))
        reserved = queues.expected_pages()
        while queues.waiting and room > 0:
            sequence = queues.waiting.first
            if sequence.finish_reason is not None:
                plan.finished.append(queues.waiting.pop())
                continue
            if sequence.num_steps_in_flight:  # it was preempted after a step was planned that has not ended yet
                break
            if len(queues.running) >= most_running or not self._admit(plan, sequence, reserved, room):
                if not self._make_way(plan, sequence):
                    break
                reserved = queues.expected_pages()
                continue
            start = sequence.num_computed
            end = min(sequence.num_computable, start + room)
            room -= end - start
            plan.chunks.schedule(sequence, start, end, kv.register(sequence, end))
            reserved += queues.expected_pages_of(sequence)

    def _admit(self, plan: StepPlan, sequence: Sequence, reserved: int, room: int) -> bool:
        """Starts the first waiting sequence if its pages can be had and `reserved` pages stay free for others.

        room: how many of its tokens the step can compute.
        """
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
        while not kv.begin(sequence, match, room):
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
