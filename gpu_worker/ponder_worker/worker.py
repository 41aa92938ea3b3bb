"""One incarnation from its first sign to its end: the parent process, put together."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.domain.state import IncarnationState, Lane
from ponder.errors import LeaseLost, PonderError
from ponder.jobs import incarnation
from ponder.jobs.abandon import abandon
from ponder.jobs.release import release
from ponder.queue.app import celery_app, queue_name
from ponder_worker.engine_handle import EngineHandle, Message
from ponder_worker.heartbeat import EngineStuck, Heartbeat, run_in_thread
from ponder_worker.holding import Holding
from ponder_worker.intake import CeleryConsumer, Intake
from ponder_worker.preemption import GONE_WITHIN_S, Leaving, Notice, Notices, Reason
from ponder_worker.settlement import Judge, Settling

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the incarnation is registered as."""

    id: str
    worker: str
    model: str
    machine: str
    market: str


@dataclass(frozen=True, slots=True)
class Rhythm:
    tick_s: float
    lease_s: float
    shard_tokens: int


class LoadingFailed(PonderError):
    """The engine process could not load the model; the message says why."""


class Worker:
    """Call everything from the main thread: the engine process lives as long as it does, and signals arrive there."""

    def __init__(
        self,
        *,
        identity: Identity,
        rhythm: Rhythm,
        database: Engine,
        redis_url: str,
        engine_options: Mapping[str, Any],
        judge: Judge,
        notices: Notices,
    ) -> None:
        self._identity = identity
        self._rhythm = rhythm
        self._database = database
        self._redis_url = redis_url
        self._engine_options = engine_options
        self._notices = notices
        self._holding = Holding()
        self._settling = Settling(judge, num_judges=2)
        self._consumer: CeleryConsumer | None = None
        self._heartbeat: Heartbeat | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """What the engine last reported in numbers, and what is held."""
        reported = self._heartbeat.metrics if self._heartbeat is not None else {}
        numbers = {name: float(value) for name, value in reported.items() if isinstance(value, int | float)}
        return numbers | {"held_jobs": len(self._holding.job_ids), "room_tokens": self._holding.room_tokens}

    def serve(self) -> int:
        """The whole life; returns the exit code of the process: 0 after a preemption that handed everything back.

        Raises UnknownMachine, LoadingFailed, and what the database says while registering.
        """
        self._register()
        engine = EngineHandle(
            self._engine_options, lambda: self._notices.give(Reason.ENGINE_DIED, "the pipe to the engine process ended")
        )
        _log.info("engine_started", engine_pid=engine.pid)
        self._heartbeat = heartbeat = Heartbeat(
            self._database,
            self._identity.id,
            engine,
            self._holding,
            self._settling,
            tick_s=self._rhythm.tick_s,
            lease_s=self._rhythm.lease_s,
        )
        thread = run_in_thread(heartbeat, self._heartbeat_ended)
        try:
            notice = self._wait_until_loaded(engine)
            if isinstance(notice, Notice):
                return self._end(notice, engine, heartbeat, thread)
            self._begin(notice, engine, heartbeat)
            return self._end(self._wait(), engine, heartbeat, thread)
        finally:
            engine.kill()

    def _register(self) -> None:
        one = self._identity
        with self._database.begin() as connection:
            incarnation.register(
                connection,
                id=one.id,
                worker=one.worker,
                host=socket.gethostname(),
                pid=os.getpid(),
                model=one.model,
                machine=one.machine,
                market=one.market,
                lease_s=self._rhythm.lease_s,
            )
        _log.info("registered", incarnation=one.id, model=one.model, machine=one.machine, market=one.market)

    def _wait_until_loaded(self, engine: EngineHandle) -> Message | Notice:
        while True:
            if (notice := self._notices.wait(0)) is not None:
                return notice
            message = engine.receive(0.1)
            if message is not None and message["type"] == "ready":
                return message
            if message is not None and message["type"] == "failed":
                self._try(
                    lambda connection: release(
                        connection, self._identity.id, reason="loading failed", shard_tokens=self._rhythm.shard_tokens
                    )
                )
                raise LoadingFailed(message["message"])

    def _begin(self, ready: Message, engine: EngineHandle, heartbeat: Heartbeat) -> None:
        with self._database.begin() as connection:
            incarnation.ready(
                connection,
                self._identity.id,
                fingerprint=ready["fingerprint"],
                context_length=ready["context_length"],
                has_reward_model=ready["has_reward_model"],
                room_tokens=ready["room_tokens"],
            )
        self._holding.report(ready["room_tokens"], 0)
        heartbeat.become(IncarnationState.READY)
        intake = Intake(
            database=self._database,
            incarnation_id=self._identity.id,
            fingerprint=ready["fingerprint"],
            holding=self._holding,
            engine=engine,
            on_lease_lost=lambda: self._notices.give(Reason.LEASE_LOST, "refused while claiming"),
        )
        # Interactive first: the order of the queues is the order in which they are asked.
        queues = [
            queue_name(self._identity.model, ready["fingerprint"], lane) for lane in (Lane.INTERACTIVE, Lane.BATCH)
        ]
        name = f"{self._identity.id}@{socket.gethostname()}"
        self._consumer = CeleryConsumer(celery_app(self._redis_url), queues, name, intake.take)
        self._consumer.start()
        _log.info("ready", fingerprint=ready["fingerprint"], room_tokens=ready["room_tokens"])

    def _wait(self) -> Notice:
        while True:
            if (notice := self._notices.wait(1.0)) is not None:
                return notice
            if self._consumer is not None and not self._consumer.is_alive:
                return Notice(Reason.BROKEN, "the Celery consumer has ended")

    def _try(self, write: Callable[[Connection], object]) -> None:
        """A last write that may fail: without it the lease ends by itself."""
        try:
            with self._database.begin() as connection:
                write(connection)
        except (SQLAlchemyError, OSError, LeaseLost) as error:
            _log.warning("last_write_failed", error=type(error).__name__)

    def _heartbeat_ended(self, error: BaseException) -> None:
        if isinstance(error, LeaseLost):
            self._notices.give(Reason.LEASE_LOST, "refused at a tick")
        elif isinstance(error, EngineStuck):
            self._notices.give(Reason.ENGINE_STUCK, str(error))
        else:
            _log.error("heartbeat_broke", exc_info=error)
            self._notices.give(Reason.BROKEN, type(error).__name__)

    def _end(self, notice: Notice, engine: EngineHandle, heartbeat: Heartbeat, thread: threading.Thread) -> int:
        _log.info("leaving", reason=notice.reason, detail=notice.detail)
        if self._consumer is not None:
            self._consumer.stop()  # before the intake gives back what this consumer would only fetch again
        self._holding.close()
        if notice.reason is not Reason.PREEMPTED:
            heartbeat.stop()
            if notice.reason is not Reason.LEASE_LOST:
                self._try(lambda connection: abandon(connection, self._identity.id))
            return 1
        if self._consumer is None:
            engine.kill()  # it loads, and would not answer in time
        # Whatever hangs from here on, the machine is about to vanish: the lease then ends by itself.
        watchdog = threading.Timer(GONE_WITHIN_S - 0.3, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        leaving = Leaving(
            self._database, self._identity.id, engine, self._holding, heartbeat, thread, self._rhythm.shard_tokens
        )
        is_saved = leaving.leave(notice.detail)
        _log.info("left", is_saved=is_saved)
        return 0 if is_saved else 1
