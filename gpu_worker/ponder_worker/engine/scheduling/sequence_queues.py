"""The sequences of one model: those that run, those that wait, and how long they are expected to become."""

from bisect import insort
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.kv.kv_cache_manager import KVCacheManager
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.scheduling.waiting_queue import WaitingQueue
from ponder_worker.engine.sequence import Priority, Sequence, Urgency

_URGENCY = attrgetter("urgency")
_WEIGHT_OF_LATEST = 1 / 32


class LengthEstimate:
    """Expects a sequence to generate as many tokens as those that finished lately, rather than its max_tokens."""

    def __init__(self) -> None:
        self._mean_tokens = 0.0  # a moving average; 0 until a sequence has finished

    def observe(self, sequence: Sequence) -> None:
        """Counts a sequence that has finished."""
        if sequence.sampling is not None:
            length = len(sequence.tokens) - sequence.prompt_length
            weight = _WEIGHT_OF_LATEST if self._mean_tokens else 1.0
            self._mean_tokens += weight * (length - self._mean_tokens)

    def length_of(self, sequence: Sequence) -> int:
        """Returns how many tokens it will probably have computed in the end."""
        if sequence.sampling is None:
            return sequence.num_computable
        expected = max(len(sequence.tokens) + 1, sequence.prompt_length + int(self._mean_tokens))
        return min(sequence.max_length, expected)


class SequenceQueues:
    """Moves sequences between running, waiting and finished. Exactly the running ones hold pages.

    running: the most urgent first; preemption takes them from the end.
    It is the `SlabOwner` of its model: another model's need for slabs may preempt sequences here.
    """

    def __init__(self, kv: KVCacheManager, counters: Counters) -> None:
        self.running: list[Sequence] = []
        self.waiting = WaitingQueue()
        self._kv = kv
        self._counters = counters
        self._lengths = LengthEstimate()
        self._any_cancelled = False

    @property
    def pool(self) -> PagePool:
        return self._kv.pool

    def expected_pages(self) -> int:
        """Returns how many more pages the running sequences are expected to take."""
        return sum(map(self.expected_pages_of, self.running))

    def expected_pages_of(self, sequence: Sequence) -> int:
        """Returns how many more pages one sequence is expected to take."""
        return self._kv.pages_ahead(sequence, self._lengths.length_of(sequence))

    def tables_below(self, urgency: Urgency) -> Iterator[PageTable]:
        """Yields the tables of running sequences that are less urgent, in the order in which they are preempted."""
        for sequence in reversed(self.running):
            if sequence.urgency <= urgency:
                return
            yield from sequence.tables

    def start(self, sequence: Sequence) -> None:
        """Moves the first waiting sequence, which holds its pages now, to the running ones."""
        first = self.waiting.pop()
        assert first is sequence, "a sequence was started out of turn"
        insort(self.running, sequence, key=_URGENCY)

    def preempt_least_urgent(self) -> Sequence:
        """Moves the last running sequence back to the waiting ones, and returns it."""
        sequence = self.running.pop()
        self._kv.preempt(sequence)
        sequence.num_computed = 0
        self.waiting.insert(sequence)
        self._counters.num_preemptions += 1
        return sequence

    def finish(self, sequence: Sequence) -> None:
        """Removes a sequence that has ended, and releases its pages."""
        if sequence.table.pages:
            self._kv.finish(sequence)
            self.running.remove(sequence)
        else:  # it was preempted while its last token was in flight
            self.waiting.remove(sequence)
            self._kv.drop(sequence)
        self._lengths.observe(sequence)

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        """Changes the priority of a sequence, which keeps its arrival, its pages and its part in a planned step."""
        is_waiting = sequence in self.waiting
        if is_waiting:
            self.waiting.remove(sequence)
        sequence.priority = priority
        if is_waiting:
            self.waiting.insert(sequence)
        else:
            self.running.sort(key=_URGENCY)

    def cancel(self, sequence: Sequence) -> None:
        """Marks a sequence, which `drop_cancelled` will remove."""
        sequence.cancelled = self._any_cancelled = True

    def drop_cancelled(self) -> None:
        """Removes the cancelled sequences, and releases what they hold."""
        if not self._any_cancelled:
            return
        self._any_cancelled = False
        for sequence in chain(self.running, self.waiting):
            if sequence.cancelled:
                self._kv.drop(sequence)
                sequence.finish_reason = "cancelled"
        self.running = [sequence for sequence in self.running if not sequence.cancelled]
        self.waiting.keep(lambda sequence: not sequence.cancelled)
