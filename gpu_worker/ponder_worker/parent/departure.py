"""How an incarnation ends: within seconds and without losing a token, or at once, leaving the rest to the sweep."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.errors import LeaseLost
from ponder.failure import brief
from ponder.jobs.release import abandon, release
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.heartbeat import Heartbeat
from ponder_worker.parent.job_traces import JobTraces
from ponder_worker.parent.notices.notice import Notice, Reason
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Drain

_log = structlog.get_logger(__name__)

GONE_WITHIN_S = 4.7
"""From the notice to the exit of the process, whatever hangs; a spot machine gives little more."""
_ENGINE_ANSWERS_WITHIN_S = 2.0
_SAVED_WITHIN_S = 4.0
_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Departure:
    """Stops and saves what an incarnation holds.

    Growing nodes keep every token: the last tick writes them into their trees, and the next worker goes on from there,
    in the middle of a beam if need be. is_loading: the engine cannot answer yet, and holds nothing.
    """

    database: Engine
    incarnation_id: str
    shard_tokens: int
    engine: EngineHandle
    capacity: WorkerCapacity
    heartbeat: Heartbeat
    is_loading: bool
    traces: JobTraces | None = None

    def depart(self, notice: Notice) -> int:
        """Returns the exit code of the process: 0 when everything was handed back."""
        self.capacity.close()
        self.heartbeat.stop()
        if notice.reason in (Reason.PREEMPTED, Reason.DRAINED):
            watchdog = threading.Timer(GONE_WITHIN_S, os._exit, (1,))
            watchdog.daemon = True
            watchdog.start()
            is_saved = self._hand_back(notice.detail)
            if is_saved and notice.acknowledge is not None:
                notice.acknowledge()
            _log.info("left", is_saved=is_saved)
            return 0 if is_saved else 1
        if notice.reason is not Reason.LEASE_LOST:
            reason = notice.reason.value
            attempt(self.database, lambda connection: abandon(connection, self.incarnation_id, reason=reason))
        return 1

    def _hand_back(self, reason: str) -> bool:
        """Drains the engine, ticks a last time and releases the shards.

        Returns whether Postgres confirmed it. If not, the lease runs out and the sweep does the same.
        """
        noticed_at = time.monotonic()
        if self.is_loading:
            self.engine.kill()
        else:
            self.engine.send(Drain())
        if not self.heartbeat.wait_until_ended(_SAVED_WITHIN_S):
            return False
        try:
            is_saved = self.heartbeat.drain(until=noticed_at + _ENGINE_ANSWERS_WITHIN_S)
            while not is_saved and time.monotonic() < noticed_at + _SAVED_WITHIN_S:
                time.sleep(_RETRY_S)
                is_saved = self.heartbeat.save()
        except LeaseLost:
            return False
        return is_saved and self._release(reason, until=noticed_at + _SAVED_WITHIN_S)

    def _release(self, reason: str, until: float) -> bool:
        num_tries = 0
        while True:
            num_tries += 1
            try:
                with self.database.begin() as connection:
                    num_jobs = release(connection, self.incarnation_id, reason=reason, shard_tokens=self.shard_tokens)
                _log.info("released", num_jobs=num_jobs)
                if self.traces is not None:
                    self.traces.handed_back()
                return True
            except LeaseLost:
                # A release whose commit was not answered has itself ended this incarnation.
                return num_tries > 1
            except (SQLAlchemyError, OSError) as error:
                _log.warning("release_waits_for_postgres", error=brief(error))
            if time.monotonic() + _RETRY_S > until:
                return False
            time.sleep(_RETRY_S)


def attempt(database: Engine, write: Callable[[Connection], object]) -> None:
    """Makes a last write, which may fail: without it the lease runs out by itself."""
    try:
        with database.begin() as connection:
            write(connection)
    except (SQLAlchemyError, OSError, LeaseLost) as error:
        _log.warning("last_write_failed", error=brief(error))
