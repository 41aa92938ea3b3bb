"""One incarnation from start to end: the parent process, put together."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from prometheus_client.core import Metric
from sqlalchemy import Connection, Engine

from ponder.alive import show_alive
from ponder.domain.state import IncarnationState, Lane
from ponder.errors import LeaseLost, PonderError
from ponder.jobs.release import release
from ponder.queue.celery_app import celery_app, queue_name
from ponder.trace import Tracer
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.parent.consumer import CeleryConsumer, RedisWatch
from ponder_worker.parent.departure import Departure, attempt
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.engine_reports import EngineStuck
from ponder_worker.parent.heartbeat import Heartbeat
from ponder_worker.parent.intake import Intake
from ponder_worker.parent.job_traces import JobTraces
from ponder_worker.parent.notices.notice import Notice, Notices, Reason
from ponder_worker.parent.registration import Identity, Registration
from ponder_worker.parent.settlement import Settling, Submit
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import EngineMetrics, Failed, Loading, Ready

_log = structlog.get_logger(__name__)

_CONSUMER_ENDS_WITHIN_S = 0.4
"""A message that is lost with this process, perhaps of a shard just released, is missed until the sweep notices."""
_LOOK_EVERY_S = 5.0
_LOOK_WHILE_DRAINING_S = 0.2


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The timing of a worker, the size of its shards, and a file that it touches for as long as it holds its lease."""

    tick_s: float
    lease_s: float
    shard_tokens: int
    alive_file: Path | None = None


class LoadingFailed(PonderError):
    """The engine process could not load the model; the message says why."""


class Worker:
    """Call everything from the main thread: the engine process lives as long as it does, and signals arrive there."""

    def __init__(
        self,
        *,
        identity: Identity,
        settings: WorkerSettings,
        database: Engine,
        redis_url: str,
        engine_options: EngineOptions,
        submit: Submit,
        notices: Notices,
        tracer: Tracer | None = None,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._database = database
        self._redis_url = redis_url
        self._engine_options = engine_options
        self._notices = notices
        self._registration = Registration(database, identity, settings.lease_s)
        self._capacity = WorkerCapacity()
        self._traces = None if tracer is None else JobTraces(tracer, identity)
        self._settling = Settling(submit, self._traces)
        self._bridge = VerifierBridge(submit, self._capacity)
        self._redis_watch = RedisWatch(redis_url)
        self._consumer: CeleryConsumer | None = None
        self._heartbeat: Heartbeat | None = None

    @property
    def metrics(self) -> EngineMetrics:
        """The engine's last metrics, and in numbers what is held and whether Redis takes and gives messages."""
        reported = self._heartbeat.metrics if self._heartbeat is not None else EngineMetrics()
        own = {
            "redis_up": self._redis_watch.is_up,
            "held_jobs": len(self._capacity.job_ids),
            "room_tokens": self._capacity.room_tokens,
        }
        return replace(reported, numbers=reported.numbers | own)

    @property
    def job_metrics(self) -> Iterable[Metric]:
        """The metrics of the jobs that it has settled."""
        return self._heartbeat.job_metrics.collect() if self._heartbeat is not None else ()

    def serve(self) -> int:
        """Runs until it is told to leave, or must. Returns the exit code: 0 after everything was handed back.

        Raises UnknownMachine, LoadingFailed, and whatever the database raises while registering.
        """
        self._registration.register()
        engine = EngineHandle(
            self._engine_options,
            lambda: self._notices.give(Notice(Reason.ENGINE_DIED, "the pipe to the engine process ended")),
            self._bridge.answer,
        )
        _log.info("engine_started", engine_pid=engine.pid)
        self._heartbeat = heartbeat = Heartbeat(
            self._database,
            self._identity.id,
            engine,
            self._capacity,
            self._settling,
            bridge=self._bridge,
            tick_s=self._settings.tick_s,
            lease_s=self._settings.lease_s,
            on_drain=lambda within_s: self._notices.give(_drain_request(within_s)),
            traces=self._traces,
        )
        heartbeat.start(lambda error: self._end("heartbeat", error))
        try:
            notice = self._load(engine, heartbeat) or self._wait(heartbeat)
            if notice.reason is Reason.DRAINED and self._consumer is not None:
                notice = self._drain(notice, self._consumer, heartbeat)
            return self._leave(notice, engine, heartbeat)
        finally:
            engine.kill()

    def _leave(self, notice: Notice, engine: EngineHandle, heartbeat: Heartbeat) -> int:
        _log.info("leaving", reason=notice.reason, detail=notice.detail)
        if notice.reason is Reason.ENGINE_STUCK:
            engine.show_stacks()
        if self._consumer is not None:
            self._consumer.stop()  # first, or it would fetch what the intake is about to give back
        code = Departure(
            database=self._database,
            incarnation_id=self._identity.id,
            shard_tokens=self._settings.shard_tokens,
            engine=engine,
            capacity=self._capacity,
            heartbeat=heartbeat,
            is_loading=self._consumer is None,
            traces=self._traces,
        ).depart(notice)
        if self._consumer is not None:
            self._consumer.wait(_CONSUMER_ENDS_WITHIN_S)
        return code

    def _load(self, engine: EngineHandle, heartbeat: Heartbeat) -> Notice | None:
        """Returns None once jobs are taken in, or why to leave before that. Raises LoadingFailed."""
        while True:
            notice = self._notices.wait(0)
            # After looking for a notice, because a child that fails says why and then ends.
            event = engine.receive(0 if notice else 0.1)
            if isinstance(event, Failed):
                attempt(self._database, self._release_unused)
                raise LoadingFailed(event.message)
            if notice is not None:
                return notice
            match event:
                case Loading():
                    _log_loading(event)
                case Ready():
                    return self._begin(event, engine, heartbeat)

    def _release_unused(self, connection: Connection) -> None:
        release(connection, self._identity.id, reason="loading failed", shard_tokens=self._settings.shard_tokens)

    def _begin(self, ready: Ready, engine: EngineHandle, heartbeat: Heartbeat) -> Notice | None:
        if (notice := self._registration.become_ready(ready, self._notices.wait)) is not None:
            return notice
        self._capacity.report(ready.room_tokens, 0)
        heartbeat.become(IncarnationState.READY)
        intake = Intake(
            database=self._database,
            incarnation_id=self._identity.id,
            fingerprint=ready.fingerprint,
            capacity=self._capacity,
            engine=engine,
            on_end=lambda error: self._end("intake", error),
            traces=self._traces,
        )
        # Queues are asked in this order: interactive first.
        queues = [queue_name(self._identity.model, ready.fingerprint, lane) for lane in (Lane.INTERACTIVE, Lane.BATCH)]
        name = f"{self._identity.id}@{socket.gethostname()}"
        self._consumer = CeleryConsumer(celery_app(self._redis_url), queues, name, intake.take)
        self._consumer.start()
        _log.info("ready", fingerprint=ready.fingerprint, room_tokens=ready.room_tokens)
        return None

    def _wait(self, heartbeat: Heartbeat) -> Notice:
        look_at = time.monotonic()
        while True:
            if heartbeat.holds_lease:
                show_alive(self._settings.alive_file)
            if (notice := self._notices.wait(1.0)) is not None:
                return notice
            if time.monotonic() >= look_at:
                self._redis_watch.look()
                look_at = time.monotonic() + _LOOK_EVERY_S
            if self._consumer is not None and not self._consumer.is_alive:
                return Notice(Reason.BROKEN, "the Celery consumer has ended")

    def _drain(self, notice: Notice, consumer: CeleryConsumer, heartbeat: Heartbeat) -> Notice:
        """Takes nothing more and finishes what it holds, for as long as the notice allows.

        Returns why it leaves in the end: a graver notice may come meanwhile, or one that leaves less time.
        """
        _log.info("draining", detail=notice.detail, drain_s=notice.drain_s)
        consumer.stop()
        self._capacity.close()
        heartbeat.become(IncarnationState.DRAINING)
        leave_at = time.monotonic() + notice.drain_s
        while self._capacity.job_ids and (left_s := leave_at - time.monotonic()) > 0:
            if heartbeat.holds_lease:
                show_alive(self._settings.alive_file)
            if (other := self._notices.wait(min(left_s, _LOOK_WHILE_DRAINING_S))) is None:
                continue
            if other.reason is not Reason.DRAINED:
                return other
            leave_at = min(leave_at, time.monotonic() + other.drain_s)
        return notice

    def _end(self, part: str, error: BaseException) -> None:
        """Called by a part that cannot go on."""
        if isinstance(error, LeaseLost):
            self._notices.give(Notice(Reason.LEASE_LOST, f"the {part} was refused"))
        elif isinstance(error, EngineStuck):
            self._notices.give(Notice(Reason.ENGINE_STUCK, str(error)))
        else:
            _log.error(f"{part}_broke", exc_info=error)
            self._notices.give(Notice(Reason.BROKEN, type(error).__name__))


def _drain_request(within_s: float) -> Notice:
    return Notice(Reason.DRAINED, "a request to drain", within_s, source="request", kind="drain")


def _log_loading(loading: Loading) -> None:
    """Logs the dtypes that the models are computed in, and why."""
    fields = {
        f"{model}{name}": value
        for model, precision in zip(("", "reward_"), loading.precisions, strict=False)
        for name, value in (("dtype", precision.dtype), ("dtype_reason", precision.reason))
    }
    _log.info("loading", device=loading.device, **fields)
