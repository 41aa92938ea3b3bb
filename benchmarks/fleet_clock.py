"""The clock of a simulation: what happens next, in the order of time."""

import heapq
from collections.abc import Callable
from itertools import count


class Clock:
    """Seconds since the beginning. Of events at the same moment, the one that was scheduled first comes first."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()

    def at(self, at_s: float, handle: Callable[..., None], *arguments: object) -> None:
        """Schedules a call."""
        heapq.heappush(self._events, (at_s, next(self._order), handle, arguments))

    def step(self) -> None:
        """Goes on to the next event, and lets it happen."""
        self.now_s, _, handle, arguments = heapq.heappop(self._events)
        handle(*arguments)
