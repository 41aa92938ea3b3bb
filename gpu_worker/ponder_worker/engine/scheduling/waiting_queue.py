"""The queue of sequences that wait for pages."""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator

from ponder_worker.engine.sequence import PRIORITY_RANKS, Sequence


class WaitingQueue:
    """Orders sequences by urgency: one queue for each priority, each in the order of arrival."""

    def __init__(self) -> None:
        self._queues: tuple[deque[Sequence], ...] = tuple(deque() for _ in PRIORITY_RANKS)

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._queues:
            yield from queue

    @property
    def first(self) -> Sequence:
        return next(queue[0] for queue in self._queues if queue)

    def append(self, sequence: Sequence) -> None:
        """Adds a sequence that has arrived after all others."""
        self._queues[PRIORITY_RANKS[sequence.priority]].append(sequence)

    def insert(self, sequence: Sequence) -> None:
        """Adds a sequence in its place by arrival among those of its priority."""
        queue = self._queues[PRIORITY_RANKS[sequence.priority]]
        queue.insert(bisect(queue, sequence.arrival, key=lambda other: other.arrival), sequence)

    def pop(self) -> Sequence:
        """Removes and returns the first sequence."""
        return next(queue for queue in self._queues if queue).popleft()

    def remove(self, sequence: Sequence) -> None:
        self._queues[PRIORITY_RANKS[sequence.priority]].remove(sequence)

    def keep(self, wanted: Callable[[Sequence], bool]) -> None:
        """Removes all sequences that are not wanted."""
        self._queues = tuple(deque(filter(wanted, queue)) for queue in self._queues)
