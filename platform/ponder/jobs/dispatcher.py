"""The long-running service that moves batches along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

import structlog
from celery import Celery
from redis import Redis
from sqlalchemy import Connection, Engine, text

from ponder.jobs.dispatch import LaneShares, dispatch
from ponder.jobs.finish import finish
from ponder.jobs.sweep import lost_messages, sweep
from ponder.jobs.validations import Validations
from ponder.jobs.wake import CHANNEL
from ponder.queue.app import celery_app, publish, queue_lengths, redis_client
from ponder.settings import Settings
from ponder.store.engine import connect
from ponder.store.failure import brief

_LEADER = 0x7765696768  # "weigh"
_POLL_S = 0.2
_ROUND_S = 2.0
"""How often everything is looked at, woken or not."""
_REPUBLISH_AFTER_S = 15.0
_RETRY_S = 1.0

_log = structlog.get_logger("ponder.dispatcher")


def run(database_url: str, redis_url: str, settings: Settings, stop: threading.Event) -> None:
    """Validates, dispatches, finishes and sweeps until `stop` is set. Any number may run; one is active.

    Survives restarts of Postgres and Redis: it says so in the log and tries again, and never raises.
    """
    engine = connect(database_url)
    client = redis_client(redis_url)
    app = celery_app(redis_url)
    with closing(Validations(engine, database_url, settings)) as validations:
        service = _Dispatcher(engine, app, client, settings, stop, validations)
        while not stop.is_set():
            try:
                with _leadership(engine, stop) as listener:
                    service.lead(listener)
            except Exception as error:  # whatever breaks, batches must go on when it is mended
                _log.warning("dispatcher interrupted", error=brief(error), retry_s=_RETRY_S)
                stop.wait(_RETRY_S)
    client.close()
    app.close()
    engine.dispose()


@contextmanager
def _leadership(engine: Engine, stop: threading.Event) -> Iterator[Connection]:
    """A connection that holds the advisory lock and listens; the lock goes with the connection."""
    with engine.connect() as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
        # Not to be handed to somebody else: it holds the lock and listens.
        connection.detach()
        while not connection.execute(text(f"SELECT pg_try_advisory_lock({_LEADER})")).scalar_one():
            if stop.wait(1.0):
                break
        connection.execute(text(f"LISTEN {CHANNEL}"))
        yield connection


@dataclass(slots=True)
class _Dispatcher:
    engine: Engine
    app: Celery
    redis: Redis
    settings: Settings
    stop: threading.Event
    validations: Validations

    def lead(self, listener: Connection) -> None:
        """Works through the rounds until `stop` is set or something breaks."""
        next_round = 0.0
        while not self.stop.is_set():
            if _is_woken(listener) or self.validations.has_news or monotonic() >= next_round:
                is_due = monotonic() >= next_round
                if is_due:
                    next_round = monotonic() + _ROUND_S
                    self._attempt(self._sweep)
                self._attempt(self._validate)
                self._attempt(self._finish)
                self._attempt(self._dispatch)
                if is_due:
                    self._attempt(self._republish)
            self.stop.wait(_POLL_S)

    def _attempt(self, step: Callable[[], None]) -> None:
        """One step that fails keeps none of the others from being done."""
        try:
            step()
        except Exception as error:
            _log.warning("a step failed", step=step.__name__.strip("_"), error=brief(error))

    def _validate(self) -> None:
        self.validations.turn()

    def _dispatch(self) -> None:
        shares = LaneShares(
            self.settings.interactive_share, self.settings.interactive_tokens, self.settings.interactive_factor
        )
        with self.engine.begin() as connection:
            messages = dispatch(connection, shard_tokens=self.settings.shard_tokens, shares=shares)
        publish(self.app, messages)

    def _finish(self) -> None:
        with self.engine.begin() as connection:
            finish(connection)

    def _sweep(self) -> None:
        for swept in sweep(self.engine, shard_tokens=self.settings.shard_tokens):
            _log.warning(
                "a worker died",
                incarnation=swept.incarnation_id,
                jobs_handed_on=swept.num_jobs_handed_on,
                jobs_failed=swept.num_jobs_failed,
            )

    def _republish(self) -> None:
        with self.engine.begin() as connection:
            messages = lost_messages(
                connection, partial(queue_lengths, self.redis), republish_after_s=_REPUBLISH_AFTER_S
            )
        if messages:
            _log.info("published again what seemed lost", num_messages=len(messages))
            publish(self.app, messages)


def _is_woken(listener: Connection) -> bool:
    """pg8000 hands notifications out with the next answer, so something must be asked."""
    listener.execute(text("SELECT 1"))
    # Not `driver_connection`: a detached connection has none.
    notifications = listener.connection.dbapi_connection.notifications  # type: ignore[union-attr]
    is_woken = bool(notifications)
    notifications.clear()
    return is_woken
