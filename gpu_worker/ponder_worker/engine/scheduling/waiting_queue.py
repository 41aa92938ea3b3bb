"""Who waits: a line for each priority."""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import get_args

from ponder_worker.engine.sequence import Priority, Sequence

Urgency = tuple[int, float]
_RANKS = {name: rank for rank, name in enumerate(get_args(Priority))}


def urgency(sequence: Sequence) -> Urgency:
    """Smaller is served first: by priority, then by age."""
    return _RANKS[sequence.priority], sequence.number


def lower(sequence: Sequence) -> Urgency:
    """Below it are the sequences of lower priority."""
    return _RANKS[sequence.priority], inf


class Queue:
    """Most urgent first."""

    def __init__(self) -> None:
        self._lines: tuple[deque[Sequence], ...] = tuple(deque() for _ in _RANKS)

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[Sequence]:
        for line in self._lines:
            yield from line

    @property
    def first(self) -> Sequence:
        return next(line[0] for line in self._lines if line)

    def append(self, sequence: Sequence) -> None:
        self._lines[_RANKS[sequence.priority]].append(sequence)

    def insert(self, sequence: Sequence) -> None:
        """By age among those of its priority."""
        line = self._lines[_RANKS[sequence.priority]]
        line.insert(bisect(line, sequence.number, key=lambda other: other.number), sequence)

    def pop(self) -> Sequence:
        return next(line for line in self._lines if line).popleft()

    def remove(self, sequence: Sequence) -> None:
        self._lines[_RANKS[sequence.priority]].remove(sequence)

    def keep(self, wanted: Callable[[Sequence], bool]) -> None:
        self._lines = tuple(deque(filter(wanted, line)) for line in self._lines)
