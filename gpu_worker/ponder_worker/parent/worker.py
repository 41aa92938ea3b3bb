"""One incarnation from its first sign to its end: the parent process, put together."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.alive import show_alive
from ponder.domain.state import IncarnationState, Lane
from ponder.errors import LeaseLost, PonderError
from ponder.failure import brief
from ponder.jobs import incarnation
from ponder.jobs.release import release
from ponder.queue.app import celery_app, queue_name, trouble
from ponder_worker.parent.consumer import CeleryConsumer
from ponder_worker.parent.departure import Departure, attempt
from ponder_worker.parent.engine_handle import EngineHandle, Message
from ponder_worker.parent.heartbeat import EngineStuck, Heartbeat, run_in_thread
from ponder_worker.parent.intake import Intake
from ponder_worker.parent.preemption import Notice, Notices, Reason
from ponder_worker.parent.settlement import Hear, Settling
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity

_log = structlog.get_logger(__name__)

_CONSUMER_ENDS_WITHIN_S = 0.4
"""A message that goes down with us, of what we just released perhaps, is missed for as long as the sweep waits."""
_RETRY_S = 0.5
_LOOK_EVERY_S = 5.0


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
        hear: Hear,
        notices: Notices,
        alive_file: Path | None = None,
    ) -> None:
        self._identity = identity
        self._rhythm = rhythm
        self._database = database
        self._redis_url = redis_url
        self._engine_options = engine_options
        self._notices = notices
        self._alive_file = alive_file
        self._holding = WorkerCapacity()
        self._settling = Settling(hear)
        self._counsel = VerifierBridge(hear, self._holding)
        self._redis_trouble: str | None = None
        self._consumer: CeleryConsumer | None = None
        self._heartbeat: Heartbeat | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """What the engine last reported in numbers, what is held, and whether Redis takes and gives messages."""
        reported = self._heartbeat.metrics if self._heartbeat is not None else {}
        numbers = {name: float(value) for name, value in reported.items() if isinstance(value, int | float)}
        numbers["redis_up"] = float(self._redis_trouble is None)
        return numbers | {"held_jobs": len(self._holding.job_ids), "room_tokens": self._holding.room_tokens}

    @property
    def latencies(self) -> dict[str, Any]:
        """What the engine last reported of how long requests took."""
        reported = self._heartbeat.metrics if self._heartbeat is not None else {}
        return {name: reported[name] for name in ("latencies", "latency_buckets_s") if name in reported}

    def serve(self) -> int:
        """The whole life; returns the exit code of the process: 0 after a preemption that handed everything back.

        Raises UnknownMachine, LoadingFailed, and what the database says while registering.
        """
        self._register()
        engine = EngineHandle(
            self._engine_options,
            lambda: self._notices.give(Reason.ENGINE_DIED, "the pipe to the engine process ended"),
            self._counsel.answer,
        )
        _log.info("engine_started", engine_pid=engine.pid)
        self._heartbeat = heartbeat = Heartbeat(
            self._database,
            self._identity.id,
            engine,
            self._holding,
            self._settling,
            counsel=self._counsel,
            tick_s=self._rhythm.tick_s,
            lease_s=self._rhythm.lease_s,
        )
        thread = run_in_thread(heartbeat, lambda error: self._end("heartbeat", error))
        try:
            notice = self._load(engine, heartbeat) or self._wait(heartbeat)
            _log.info("leaving", reason=notice.reason, detail=notice.detail)
            if notice.reason is Reason.ENGINE_STUCK:
                engine.show_stacks()
            if self._consumer is not None:
                self._consumer.stop()  # before the intake gives back what this consumer would only fetch again
            code = Departure(
                database=self._database,
                incarnation_id=self._identity.id,
                shard_tokens=self._rhythm.shard_tokens,
                engine=engine,
                holding=self._holding,
                heartbeat=heartbeat,
                heartbeat_thread=thread,
                is_loading=self._consumer is None,
            ).depart(notice)
            if self._consumer is not None:
                self._consumer.wait(_CONSUMER_ENDS_WITHIN_S)
            return code
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
        _log.info("registered", model=one.model, machine=one.machine, market=one.market)

    def _load(self, engine: EngineHandle, heartbeat: Heartbeat) -> Notice | None:
        """Returns None when jobs are taken in, or why it should come to an end before."""
        while True:
            notice = self._notices.wait(0)
            # After the notice, because a child that fails says why and then ends.
            message = engine.receive(0 if notice else 0.1) or {"type": None}
            if message["type"] == "failed":
                attempt(self._database, self._release_unused)
                raise LoadingFailed(message["message"])
            if notice is not None:
                return notice
            if message["type"] == "loading":
                _log_loading(message)
            if message["type"] == "ready":
                return self._begin(message, engine, heartbeat)

    def _release_unused(self, connection: Connection) -> None:
        release(connection, self._identity.id, reason="loading failed", shard_tokens=self._rhythm.shard_tokens)

    def _begin(self, ready: Message, engine: EngineHandle, heartbeat: Heartbeat) -> Notice | None:
        if (notice := self._tell_ready(ready)) is not None:
            return notice
        self._holding.report(ready["room_tokens"], 0)
        heartbeat.become(IncarnationState.READY)
        intake = Intake(
            database=self._database,
            incarnation_id=self._identity.id,
            fingerprint=ready["fingerprint"],
            holding=self._holding,
            engine=engine,
            on_end=lambda error: self._end("intake", error),
        )
        # Interactive first: the order of the queues is the order in which they are asked.
        queues = [
            queue_name(self._identity.model, ready["fingerprint"], lane) for lane in (Lane.INTERACTIVE, Lane.BATCH)
        ]
        name = f"{self._identity.id}@{socket.gethostname()}"
        self._consumer = CeleryConsumer(celery_app(self._redis_url), queues, name, intake.take)
        self._consumer.start()
        _log.info("ready", fingerprint=ready["fingerprint"], room_tokens=ready["room_tokens"])
        return None

    def _tell_ready(self, ready: Message) -> Notice | None:
        """Tries until Postgres answers: what has been loaded is not loaded again because of an outage."""
        while True:
            try:
                with self._database.begin() as connection:
                    incarnation.ready(
                        connection,
                        self._identity.id,
                        fingerprint=ready["fingerprint"],
                        context_length=ready["context_length"],
                        has_reward_model=ready["has_reward_model"],
                        room_tokens=ready["room_tokens"],
                    )
                return None
            except LeaseLost as error:
                return Notice(Reason.LEASE_LOST, str(error))
            except (SQLAlchemyError, OSError) as error:
                _log.warning("ready_waits_for_postgres", error=brief(error))
            if (notice := self._notices.wait(_RETRY_S)) is not None:
                return notice

    def _wait(self, heartbeat: Heartbeat) -> Notice:
        look_at = time.monotonic()
        while True:
            if heartbeat.holds_lease:
                show_alive(self._alive_file)
            if (notice := self._notices.wait(1.0)) is not None:
                return notice
            if time.monotonic() >= look_at:
                self._look_at_redis()
                look_at = time.monotonic() + _LOOK_EVERY_S
            if self._consumer is not None and not self._consumer.is_alive:
                return Notice(Reason.BROKEN, "the Celery consumer has ended")

    def _look_at_redis(self) -> None:
        """No reason to end: model and jobs are here, and messages come again when it is mended."""
        before, self._redis_trouble = self._redis_trouble, trouble(self._redis_url, timeout_s=2)
        if self._redis_trouble is not None and before is None:
            _log.warning("no_messages", redis=self._redis_trouble)
        elif self._redis_trouble is None and before is not None:
            _log.info("messages_again")

    def _end(self, part: str, error: BaseException) -> None:
        """Told by a part of ours that cannot go on."""
        if isinstance(error, LeaseLost):
            self._notices.give(Reason.LEASE_LOST, f"the {part} was refused")
        elif isinstance(error, EngineStuck):
            self._notices.give(Reason.ENGINE_STUCK, str(error))
        else:
            _log.error(f"{part}_broke", exc_info=error)
            self._notices.give(Reason.BROKEN, type(error).__name__)


def _log_loading(message: Message) -> None:
    """Logs the dtypes that the models are computed in, and why."""
    fields = {
        f"{model}{name}": value
        for model, precision in zip(("", "reward_"), message["precisions"], strict=False)
        for name, value in (("dtype", precision["dtype"]), ("dtype_reason", precision["reason"]))
    }
    _log.info("loading", device=message["device"], **fields)
