"""Notices that tell a worker to leave, and those that come as signals."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType
from typing import Self


class Reason(StrEnum):
    PREEMPTED = "preempted"
    """The machine or the process is about to go: it leaves at once and hands everything back."""
    DRAINED = "drained"
    """It was asked to leave, and has time to finish some of what it holds. The rest is handed back."""
    ENGINE_DIED = "engine_died"
    ENGINE_STUCK = "engine_stuck"
    LEASE_LOST = "lease_lost"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Notice:
    """Why this incarnation ends.

    detail: for people, who read that a job was "preempted by" it. drain_s: the time to drain. source: the cloud, or
    whatever else it comes from. warning_s: how long before the machine goes it came, if known. acknowledge: what its
    source waits for once everything is handed back.
    """

    reason: Reason
    detail: str
    drain_s: float = 0.0
    source: str = "worker"
    kind: str = "failure"
    warning_s: float | None = None
    acknowledge: Callable[[], None] | None = None

    @classmethod
    def preempting(
        cls, cloud: str, kind: str, warning_s: float | None = None, acknowledge: Callable[[], None] | None = None
    ) -> Self:
        """Makes the notice of a cloud that the machine goes, in so many seconds if they are known."""
        if warning_s is None:
            return cls(Reason.PREEMPTED, f"{cloud} notice", 0.0, cloud, kind, None, acknowledge)
        left_s = max(0.0, warning_s)
        return cls(Reason.PREEMPTED, f"{cloud} notice, {left_s:.0f} s before", 0.0, cloud, kind, left_s, acknowledge)


class Notices:
    """The first notice decides, unless it leaves time to drain: then a graver one may follow.

    `give` may be called from any thread and from a signal handler. Whatever calls it is a source of notices.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._given: list[Notice] = []

    @property
    def given(self) -> tuple[Notice, ...]:
        """All notices so far, in their order."""
        return tuple(self._given)

    def give(self, notice: Notice) -> None:
        self._given.append(notice)
        self._queue.put(notice)

    def wait(self, timeout_s: float) -> Notice | None:
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def watch_signals(self) -> None:
        """Makes SIGTERM and SIGINT hand everything back and leave. A repeated signal changes nothing.

        Call it from the main thread.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            name = signal.Signals(number).name
            self.give(Notice(Reason.PREEMPTED, name, source="signal", kind=name))

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
