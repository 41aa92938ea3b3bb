"""The queue of sequences that wait for pages."""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator
from operator import attrgetter

from ponder_worker.engine.sequence import PRIORITY_RANKS, Sequence

_URGENCY = attrgetter("urgency")


class WaitingQueue:
    """Orders sequences by urgency, in one queue for each priority."""

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

    def insert(self, sequence: Sequence) -> None:
        """Adds a sequence in its place among those of its priority."""
        queue = self._queues[PRIORITY_RANKS[sequence.priority]]
        if queue and sequence.urgency < queue[-1].urgency:
            queue.insert(bisect(queue, sequence.urgency, key=_URGENCY), sequence)
        else:
            queue.append(sequence)

    def pop(self) -> Sequence:
        """Removes and returns the first sequence."""
        return next(queue for queue in self._queues if queue).popleft()

    def remove(self, sequence: Sequence) -> None:
        self._queues[PRIORITY_RANKS[sequence.priority]].remove(sequence)

    def keep(self, wanted: Callable[[Sequence], bool]) -> None:
        """Removes all sequences that are not wanted."""
        self._queues = tuple(deque(filter(wanted, queue)) for queue in self._queues)
