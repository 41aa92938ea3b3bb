"""Which tokens are computed in the next step. Integers and deques, no tensors.

There are no phases: each sequence's computed tokens catch up with its known ones under one token budget a step.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager
from ponder_worker.engine.kv.kv_offload import KVOffload, Pairs
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.scheduling.admission import Admission
from ponder_worker.engine.scheduling.length_estimate import LengthEstimate
from ponder_worker.engine.scheduling.step_plan import Counters, Output, Plan, Result, Row, outputs_of
from ponder_worker.engine.scheduling.waiting_queue import Queue, urgency
from ponder_worker.engine.sequence import Priority, Sequence

__all__ = ["Counters", "Plan", "Result", "Scheduler"]


class Scheduler:
    """By priority, then first come, first served.

    Out of pages, the youngest of the lowest priority gives its pages back and goes on later: what stood in them is
    parked in host memory or computed again. Who waits is let in when what those running are expected still to need
    leaves room. Two plans may be made before the first is committed.
    """

    def __init__(
        self,
        pool: PagePool,
        *,
        max_step_tokens: int,
        max_sequences: int,
        budget: SlabAllocator | None = None,
        parking: KVOffload | None = None,
        move: Callable[[Pairs], None] = lambda pairs: None,
    ) -> None:
        """budget: where the pool's slabs come from; move(pairs) copies held pages, (from, to), at once."""
        self.pool = pool
        self.counters = Counters()
        self.running: list[Sequence] = []  # most urgent first, then oldest
        self.waiting = Queue()
        self._max_step_tokens = max_step_tokens
        self._budget = budget or SlabAllocator()
        self._budget.join(self)
        self._holdings = KVCacheManager(self, self._budget, parking, self.counters)
        self._move = move
        self._expectation = LengthEstimate()
        self._admission = Admission(self, self._holdings, self._expectation, max_sequences)
        self._cancelled = False

    @property
    def num_free(self) -> int:
        """Pages that can be had without anybody giving way."""
        return self.pool.num_free + self._budget.spare_pages(self)

    @property
    def most_pages(self) -> int:
        """That one sequence can have."""
        return self._budget.most_pages(self)

    def add(self, sequence: Sequence) -> None:
        sequence.number = next(self._budget.numbers)
        self.waiting.append(sequence)
        self.counters.prompt_tokens += sequence.prompt_length

    def cancel(self, sequence: Sequence) -> None:
        """Its pages are back when the next step is planned."""
        sequence.cancelled = self._cancelled = True

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        """It keeps its age, its pages and its place in a step that has been planned."""
        is_waiting = sequence in self.waiting
        if is_waiting:
            self.waiting.remove(sequence)
        sequence.priority = priority
        if is_waiting:
            self.waiting.insert(sequence)
        else:
            self.running.sort(key=urgency)

    def plan(self) -> Plan:
        """Pages are taken and registered here, so that sequences of one step find each other's prefixes."""
        self._holdings.settle()
        self._drop_cancelled()
        plan = Plan()
        running, page_size = self.running, self.pool.page_size
        before = self.counters.num_preemptions
        room = self._max_step_tokens
        for index, sequence in enumerate(running):  # from the end of which the youngest may be preempted meanwhile
            start, end = sequence.num_computed, sequence.num_wanted
            if end <= start:
                continue
            if end > start + 1:  # One token is kept for everyone younger: a long prefill never stalls those who decode.
                end = min(end, start + room - (len(running) - index - 1))
            if end > len(sequence.table.pages) * page_size and not self._grow(sequence, end):
                break
            self.schedule(plan, sequence, start, end)
            room -= end - start
        if self.waiting and self.counters.num_preemptions == before:
            self._admission.fill(plan, room)
        return plan

    def commit(self, plan: Plan, result: Result) -> list[Output]:
        """Sampled tokens join their sequences; who is done gives the pages back. An output for all who are not gone."""
        counters, chunks = self.counters, plan.chunks
        counters.num_steps += 1
        counters.computed_tokens += sum(chunks.ends) - sum(chunks.starts)
        rows: list[Row] = [(sequence, [], [], sequence.finish_reason, 0, 0, 0.0) for sequence in plan.finished]
        for sequence, start, end, samples, token, values, read in zip(
            chunks.sequences, chunks.starts, chunks.ends, chunks.samples,
            result.tokens, result.logprobs, result.kv_bytes_read, strict=True,
        ):  # fmt: skip
            length = end - start
            sequence.num_underway -= 1
            sequence.num_pending -= samples
            if sequence.finish_reason is not None:  # it ended, or was cancelled, in the step before this one
                counters.wasted_tokens += length
                continue
            if length > 1 and sequence.table.pages:  # a prompt's last page; siblings that come later copy it
                self.pool.prefixes.register_partial(sequence.table, sequence.tokens, end)
            once = sequence.num_computed_once
            if start < once:
                counters.recomputed_tokens += min(end, once) - start
            if end > once:
                sequence.num_computed_once = end
            if token is not None:
                sequence.append(token, values[0])
                counters.generated_tokens += 1
            elif values:
                sequence.take_scores(values)
                counters.scored_tokens += len(values)
                if end == sequence.num_wanted:  # its last position is always one that is scored
                    sequence.finish_reason = "scored"
            reason = sequence.finish_reason
            rows.append((sequence, [] if token is None else [token], values, reason, start, length, read))
            if reason is not None:
                self._finish(sequence)
        return outputs_of(rows)

    def check(self) -> None:
        self._budget.check()
        self._holdings.check([*self.running, *self.waiting])

    def expected_pages(self) -> int:
        """That those running are still going to take."""
        return sum(self._expectation.pages(sequence, self.pool) for sequence in self.running)

    def rename(self, moves: Mapping[int, int]) -> None:
        """Held pages were given other numbers, from -> to."""
        self._move(list(moves.items()))
        names = np.arange(self.pool.num_pages, dtype=np.int32)
        names[list(moves)] = list(moves.values())
        for sequence in self.running:
            sequence.table.rename(names)

    def preempt_youngest(self) -> Sequence:
        sequence = self.running.pop()
        self._holdings.give_back(sequence, for_now=True)
        sequence.num_computed = 0
        self.waiting.insert(sequence)
        self.counters.num_preemptions += 1
        return sequence

    def schedule(self, plan: Plan, sequence: Sequence, start: int, end: int) -> None:
        """Tokens [start, end) are computed in this step; their pages are there."""
        write_from = sequence.table.num_registered * self.pool.page_size
        if end - write_from >= self.pool.page_size:
            self._holdings.register(sequence, end)
        sequence.num_computed = end
        samples = end >= len(sequence.tokens) and sequence.sampling is not None
        plan.chunks.append(sequence, start, end, write_from, samples)
        sequence.num_underway += 1
        sequence.num_pending += samples

    def _grow(self, sequence: Sequence, end: int) -> bool:
        """Pages for so many tokens, whoever has to give way; False if it is the sequence itself."""
        while not self._holdings.grow(sequence, end, urgency(self.running[-1])):
            if self.preempt_youngest() is sequence:
                return False
        return True

    def _finish(self, sequence: Sequence) -> None:
        if sequence.table.pages:
            self._holdings.give_back(sequence)
            self.running.remove(sequence)
        else:  # preempted while its last token was on the way
            self.waiting.remove(sequence)
            self._holdings.drop(sequence)
        self._expectation.learn(sequence)

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        self._cancelled = False
        for sequence in (*self.running, *self.waiting):
            if sequence.cancelled:
                self._holdings.drop(sequence)
                sequence.finish_reason = "cancelled"
        self.running = [sequence for sequence in self.running if not sequence.cancelled]
        self.waiting.keep(lambda sequence: not sequence.cancelled)
