"""Which tokens are computed in the next step. Integers and deques, no tensors.

There are no phases: each sequence's computed tokens catch up with its known ones under one token budget a step.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ponder_worker.engine.pages import PagePool
from ponder_worker.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, end) of a sequence, to be computed in one step.

    write_from: positions below it stand in pages that others filled; they are computed for their output only.
    """

    sequence: Sequence
    start: int
    end: int
    write_from: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: oldest sequence first. `finished` need no computing: they were complete when they came."""

    chunks: list[Chunk] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What the runner found, a list entry a chunk.

    tokens: the sampled one, if the chunk reaches the end of its sequence's known tokens; logprobs: of that token, or of
    the tokens that the chunk scored, or what was read at its marks; kv_bytes_read: a page's bytes divided among those
    who read it in this step.
    """

    tokens: list[int | None]
    logprobs: list[list[float]]
    kv_bytes_read: list[float]


@dataclass(slots=True)
class Counters:
    """Tokens since the engine was made. Prefix queries and hits: tokens looked up, tokens found in pages."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    num_preemptions: int = 0
    num_steps: int = 0


class Scheduler:
    """First come, first served. Out of pages, the youngest gives its pages back and is computed again later."""

    def __init__(self, pool: PagePool, *, max_step_tokens: int, max_sequences: int) -> None:
        self.pool = pool
        self.counters = Counters()
        self.running: list[Sequence] = []  # oldest first
        self.waiting: deque[Sequence] = deque()  # oldest first, and all younger than those running
        self._max_step_tokens = max_step_tokens
        self._max_sequences = max_sequences
        self._cancelled = False

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self.counters.prompt_tokens += sequence.prompt_length

    def cancel(self, sequence: Sequence) -> None:
        """Its pages are back when the next step is planned."""
        sequence.cancelled = self._cancelled = True

    def plan(self) -> Plan:
        """Pages are taken and registered here, so that sequences of one step find each other's prefixes."""
        self._drop_cancelled()
        chunks: list[Chunk] = []
        room = self._max_step_tokens
        index = 0
        preempted = False
        while index < len(self.running):
            sequence = self.running[index]
            # One token is kept for everyone younger: a long prefill never stalls those who decode.
            allowed = room - (len(self.running) - index - 1)
            start = sequence.num_computed
            end = min(sequence.num_wanted, start + allowed)
            while not self.pool.grow(sequence.table, end):
                preempted = True
                if self._preempt_youngest() is sequence:
                    break
            else:
                self._schedule(chunks, sequence, start, end)
                room -= end - start
                index += 1
        return Plan(chunks, [] if preempted else self._admit(chunks, room))

    def commit(self, plan: Plan, result: Result) -> None:
        """Sampled tokens join their sequences; who is done gives the pages back."""
        counters = self.counters
        counters.num_steps += 1
        finished = bool(plan.finished)
        for chunk, token, logprobs in zip(plan.chunks, result.tokens, result.logprobs, strict=True):
            sequence = chunk.sequence
            sequence.num_computed = chunk.end
            counters.computed_tokens += chunk.end - chunk.start
            counters.recomputed_tokens += max(0, min(chunk.end, sequence.num_computed_once) - chunk.start)
            sequence.num_computed_once = max(sequence.num_computed_once, chunk.end)
            if token is not None:
                sequence.append(token, logprobs[0])
                counters.generated_tokens += 1
            elif logprobs:
                sequence.take_scores(logprobs)
                counters.scored_tokens += len(logprobs)
                if chunk.end == sequence.num_wanted:  # its last position is always one that is scored
                    sequence.finish_reason = "scored"
            if sequence.finish_reason is not None:
                finished = True
                self.pool.release(sequence.table)
        if finished:
            self.running = [sequence for sequence in self.running if sequence.finish_reason is None]

    def check(self) -> None:
        self.pool.check(sequence.table for sequence in (*self.running, *self.waiting))

    def _schedule(self, chunks: list[Chunk], sequence: Sequence, start: int, end: int) -> None:
        table = sequence.table
        write_from = table.num_registered * self.pool.page_size
        if end // self.pool.page_size > table.num_registered:
            table.key_tokens(sequence.tokens, self.pool.page_size)
            self.pool.register(table, end)
        chunks.append(Chunk(sequence, start, end, write_from))

    def _admit(self, chunks: list[Chunk], room: int) -> list[Sequence]:
        """Fills the rest of the step from the waiting, in order; returns those that had nothing to compute."""
        finished: list[Sequence] = []
        while self.waiting and room > 0 and len(self.running) < self._max_sequences:
            sequence = self.waiting[0]
            if sequence.finish_reason is not None:
                finished.append(self.waiting.popleft())
                continue
            if not self._share_prefix(sequence):
                break
            self.running.append(self.waiting.popleft())
            end = min(sequence.num_wanted, sequence.num_computed + room)
            grown = self.pool.grow(sequence.table, end)
            assert grown, "admitted without pages"
            room -= end - sequence.num_computed
            self._schedule(chunks, sequence, sequence.num_computed, end)
        return finished

    def _share_prefix(self, sequence: Sequence) -> bool:
        """Holds the pages that already have the sequence's prefix; False, and nothing held, if the rest cannot fit.

        A page a running sequence is kept free, so that who is admitted is not preempted at once.
        """
        pool, table = self.pool, sequence.table
        table.key_tokens(sequence.tokens, pool.page_size)
        found = pool.find(table)
        missing = pool.pages_for(sequence.num_wanted) - len(found)
        kept = len(self.running)
        if missing + pool.num_free_of(found) + kept > pool.num_free:
            return False
        pool.share(table, found)
        sequence.num_computed = min(len(found) * pool.page_size, sequence.first_needed)
        if not sequence.num_computed_once:  # who comes back from preemption finds his own pages
            self.counters.prefix_queries += sequence.num_wanted
            self.counters.prefix_hits += sequence.num_computed
        return True

    def _preempt_youngest(self) -> Sequence:
        sequence = self.running.pop()
        self.pool.release(sequence.table)
        sequence.num_computed = 0
        self.waiting.appendleft(sequence)
        self.counters.num_preemptions += 1
        return sequence

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        self._cancelled = False
        gone: Iterable[Sequence] = [s for s in (*self.running, *self.waiting) if s.cancelled]
        for sequence in gone:
            self.pool.release(sequence.table)
            sequence.finish_reason = "cancelled"
        self.running = [sequence for sequence in self.running if not sequence.cancelled]
        self.waiting = deque(sequence for sequence in self.waiting if not sequence.cancelled)
