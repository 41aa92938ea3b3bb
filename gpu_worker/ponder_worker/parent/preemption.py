"""Being told to go: who may say so."""

from __future__ import annotations

import queue
import signal
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType


class Reason(StrEnum):
    PREEMPTED = "preempted"
    ENGINE_DIED = "engine_died"
    ENGINE_STUCK = "engine_stuck"
    LEASE_LOST = "lease_lost"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Notice:
    """Why this incarnation ends; `detail` is for the log."""

    reason: Reason
    detail: str


class Notices:
    """The first notice decides. `give` may be called from any thread and from a signal handler.

    A source of notices is whatever calls `give`: signals here, a thread that asks a cloud's metadata service elsewhere.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Notice] = queue.SimpleQueue()

    def give(self, reason: Reason, detail: str) -> None:
        self._queue.put(Notice(reason, detail))

    def wait(self, timeout_s: float) -> Notice | None:
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def watch_signals(self) -> None:
        """SIGTERM and SIGINT mean: hand everything back and go. A repeated signal changes nothing. Main thread only."""

        def handle(number: int, frame: FrameType | None) -> None:
            self.give(Reason.PREEMPTED, signal.Signals(number).name)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
