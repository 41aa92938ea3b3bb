"""Who is served next: each owner in turn, so that many cases of one hold up another's for one case only."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue for any number of threads on both ends; one owner's items come out in the order of their coming."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._closed = False

    def put(self, whose: Hashable, item: T) -> None:
        with self._changed:
            self._lines.setdefault(whose, deque()).append(item)
            self._changed.notify()

    def take(self) -> T | None:
        """Waits for one; None when it was closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            if not self._lines:
                return None
            whose, line = self._lines.popitem(last=False)
            item = line.popleft()
            if line:
                self._lines[whose] = line
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
