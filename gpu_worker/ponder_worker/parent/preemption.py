"""Notices that tell a worker to leave, and their sources."""

from __future__ import annotations

import queue
import signal
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType


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
    """Why this incarnation ends; `detail` is for people. within_s: the time to drain."""

    reason: Reason
    detail: str
    within_s: float = 0.0


class Notices:
    """The first notice decides, unless it leaves time to drain: then a graver one may follow.

    `give` may be called from any thread and from a signal handler.

    Whatever calls `give` is a source of notices: the signals here, or a thread that asks a cloud's metadata service.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Notice] = queue.SimpleQueue()

    def give(self, notice: Notice) -> None:
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
            self.give(Notice(Reason.PREEMPTED, signal.Signals(number).name))

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
