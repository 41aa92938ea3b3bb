"""Being told to go: who may say so, and how a worker leaves within seconds without losing a token."""

from __future__ import annotations

import queue
import signal
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.errors import LeaseLost
from ponder.jobs.release import release
from ponder_worker.engine_handle import EngineHandle
from ponder_worker.heartbeat import Heartbeat, cause
from ponder_worker.holding import Holding

_log = structlog.get_logger(__name__)

GONE_WITHIN_S = 5.0
"""From the notice to the exit of the process."""
_ENGINE_ANSWERS_WITHIN_S = 2.0
_SAVED_WITHIN_S = 4.0
_RETRY_S = 0.2


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


@dataclass(frozen=True, slots=True)
class Leaving:
    """What has to be stopped and saved when a worker goes."""

    database: Engine
    incarnation_id: str
    engine: EngineHandle
    holding: Holding
    heartbeat: Heartbeat
    heartbeat_thread: threading.Thread
    shard_tokens: int

    def leave(self, reason: str) -> bool:
        """Stops admitting, drains the engine, ticks a last time and releases the shards.

        Returns whether Postgres confirmed; where it did not, the lease ends by itself and the sweep does the same.
        """
        noticed_at = time.monotonic()
        self.holding.close()
        self.heartbeat.stop()
        self.engine.send({"type": "drain"})
        self.heartbeat_thread.join(_SAVED_WITHIN_S)
        if self.heartbeat_thread.is_alive():
            return False
        try:
            saved = self.heartbeat.drain(until=noticed_at + _ENGINE_ANSWERS_WITHIN_S)
            while not saved and time.monotonic() < noticed_at + _SAVED_WITHIN_S:
                time.sleep(_RETRY_S)
                saved = self.heartbeat.save()
            return saved and self._release(reason, until=noticed_at + _SAVED_WITHIN_S)
        except LeaseLost:
            return False

    def _release(self, reason: str, until: float) -> bool:
        num_tries = 0
        while True:
            num_tries += 1
            try:
                with self.database.begin() as connection:
                    num_jobs = release(connection, self.incarnation_id, reason=reason, shard_tokens=self.shard_tokens)
                _log.info("released", num_jobs=num_jobs)
                return True
            except LeaseLost:
                # A release whose commit was not answered has ended this incarnation itself.
                return num_tries > 1
            except (SQLAlchemyError, OSError) as error:
                _log.warning("release_waits_for_postgres", error=type(error).__name__, detail=cause(error))
            if time.monotonic() + _RETRY_S > until:
                return False
            time.sleep(_RETRY_S)
