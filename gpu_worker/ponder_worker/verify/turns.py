"""Who is served next: the owner that has used the least time, so that long cases of one hold up nobody else."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue for any number of threads on both ends; one owner's items come out in the order of their coming.

    Start-time fair queueing over seconds. An owner that comes, or comes back, starts where the least of those is that
    wait or are served: it has saved nothing up by its absence, and what it used before it went still counts.
    """

    def __init__(self, most: int) -> None:
        """most: items of one owner that are served at a time."""
        self._most = most
        self._changed = threading.Condition()
        self._lines: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._served: Counter[Hashable] = Counter()
        self._used_s: dict[Hashable, float] = {}
        self._closed = False

    def put(self, whose: Hashable, item: T) -> None:
        with self._changed:
            if whose not in self._lines and not self._served[whose]:
                self._used_s[whose] = max(self._used_s.get(whose, 0.0), self._least())
            self._lines.setdefault(whose, deque()).append(item)
            self._changed.notify_all()  # not each of those that wait may take it

    def take(self) -> tuple[Hashable, T] | None:
        """Waits for one; None when it was closed and nothing is left. `served` is to be told when it is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._allowed() or (self._closed and not self._lines))
            if not self._lines:
                return None
            # Among equals the one whose turn was longest ago.
            whose = min(self._allowed(), key=self._used_s.__getitem__)
            self._lines.move_to_end(whose)
            line = self._lines[whose]
            item = line.popleft()
            if not line:
                del self._lines[whose]
            self._served[whose] += 1
            if self._closed:
                self._changed.notify_all()
            return whose, item

    def served(self, whose: Hashable, seconds: float) -> None:
        """An item of this owner is done, and took so long."""
        with self._changed:
            self._used_s[whose] += seconds
            self._served[whose] -= 1
            self._served += Counter()  # drops those at zero
            self._forget()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _allowed(self) -> list[Hashable]:
        return [owner for owner in self._lines if self._served[owner] < self._most]

    def _least(self) -> float:
        return min((self._used_s[owner] for owner in self._lines.keys() | self._served.keys()), default=0.0)

    def _forget(self) -> None:
        """Owners that are away and would start no later than a new one."""
        active = self._lines.keys() | self._served.keys()
        least = self._least()
        self._used_s = {
            owner: used for owner, used in self._used_s.items() if active and (owner in active or used > least)
        }
