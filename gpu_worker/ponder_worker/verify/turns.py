"""A queue that serves the owner that has used the least time, so that one owner's long cases hold up no other's."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A fair queue for any number of threads on both ends. Items of one owner keep their order.

    Start-time fair queueing over seconds. An owner that joins, or joins again, starts at the least time used by one
    that waits or is served. It saves up nothing by its absence, and what it used before still counts.
    """

    def __init__(self, most: int) -> None:
        """Serves at most so many items of one owner at a time."""
        self._most = most
        self._changed = threading.Condition()
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._served: Counter[Hashable] = Counter()
        self._used_s: dict[Hashable, float] = {}
        self._closed = False

    def put(self, owner: Hashable, item: T) -> None:
        with self._changed:
            if owner not in self._queues and not self._served[owner]:
                self._used_s[owner] = max(self._used_s.get(owner, 0.0), self._least())
            self._queues.setdefault(owner, deque()).append(item)
            self._changed.notify_all()  # not every waiting thread may take it

    def take(self) -> tuple[Hashable, T] | None:
        """Waits for an item and returns it with its owner; call `served` when it is done. None: closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._allowed() or (self._closed and not self._queues))
            if not self._queues:
                return None
            # Among equals, takes the owner with the longest wait since its last turn.
            owner = min(self._allowed(), key=self._used_s.__getitem__)
            self._queues.move_to_end(owner)
            queue = self._queues[owner]
            item = queue.popleft()
            if not queue:
                del self._queues[owner]
            self._served[owner] += 1
            if self._closed:
                self._changed.notify_all()
            return owner, item

    def served(self, owner: Hashable, seconds: float) -> None:
        """Books the seconds of a finished item."""
        with self._changed:
            self._used_s[owner] += seconds
            self._served[owner] -= 1
            self._served += Counter()  # drops those at zero
            self._forget()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _allowed(self) -> list[Hashable]:
        return [owner for owner in self._queues if self._served[owner] < self._most]

    def _least(self) -> float:
        return min((self._used_s[owner] for owner in self._queues.keys() | self._served.keys()), default=0.0)

    def _forget(self) -> None:
        """Drops absent owners that would start no later than a new one."""
        active = self._queues.keys() | self._served.keys()
        least = self._least()
        self._used_s = {
            owner: used for owner, used in self._used_s.items() if active and (owner in active or used > least)
        }
