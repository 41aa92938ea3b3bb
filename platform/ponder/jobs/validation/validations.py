"""Runs validations beside the dispatcher, each in a process of its own, with tenants taking turns."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from time import monotonic, time
from typing import Any

from sqlalchemy import Engine, Row, text

from ponder.errors import PonderError
from ponder.failure import brief
from ponder.jobs.validation.check_limits import CheckLimits, LineClock
from ponder.jobs.validation.limited_process import LimitedProcess, ProcessEnded
from ponder.jobs.validation.validate import validate
from ponder.settings import Settings
from ponder.store.database import connect
from ponder.trace import Span, TraceContext, Tracer

_NICENESS = 5
"""Validation can wait; what serves and schedules cannot."""
_RETRY_S = 2.0
_BATCHES = text(
    """
    SELECT id, tenant_id, state, traceparent FROM batches
    WHERE state = 'validating' OR id = ANY(CAST(:running AS text[]))
    ORDER BY created_at, id
    """
)
_STOPPED = ("cancelling", "cancelled", "expired")


class Unvalidated(PonderError):
    """A validation broke off through no fault of the file and will be tried again. The message names the batch."""


@dataclass(slots=True)
class _Slot:
    """A process and the batch it validates, or None while it is idle."""

    process: LimitedProcess
    batch_id: str | None = None
    tenant_id: str | None = None
    traceparent: str | None = None
    begun_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """The reason why a batch's last validation broke off, and the time by our monotonic clock."""

    reason: str
    at: float


class Validations:
    """Up to `PONDER_VALIDATORS` validations at a time, at most half of them for one tenant. Idle processes are kept."""

    def __init__(self, engine: Engine, database_url: str, settings: Settings, tracer: Tracer | None = None) -> None:
        self._engine = engine
        self._database_url = database_url
        self._settings = settings
        self._limits = CheckLimits.of(settings)
        self._tracer = tracer
        self._slots: list[_Slot] = []
        self._turns: dict[str, int] = {}
        """The number of each tenant's last turn."""
        self._failures: dict[str, _Failure] = {}

    @property
    def running(self) -> dict[str, int]:
        """The process id of each batch being validated."""
        return {slot.batch_id: slot.process.pid for slot in self._slots if slot.batch_id is not None}

    @property
    def has_news(self) -> bool:
        """Whether a process has finished or died."""
        return any(slot.process.has_answer for slot in self._slots)

    def turn(self) -> None:
        """Collects finished validations, ends cancelled ones, and begins waiting ones. Never blocks.

        Raises Unvalidated, after all others have begun, if a batch waits because its last validation broke off.
        """
        self._collect()
        with self._engine.connect() as connection:
            batches = connection.execute(_BATCHES, {"running": list(self.running)}).all()
        self._stop({batch.id for batch in batches if batch.state in _STOPPED})
        validating = {batch.id for batch in batches if batch.state == "validating"}
        self._failures = {batch_id: found for batch_id, found in self._failures.items() if batch_id in validating}
        begun = self.running.keys() | self._resting()
        waiting = [batch for batch in batches if batch.id in validating - begun]
        while (batch := self._next(waiting)) is not None:
            waiting.remove(batch)
            self._begin(batch)
        if not self._slots:
            self._slots.append(_Slot(LimitedProcess(answer_validation)))  # started early, for the first batch
        for batch_id, failure in self._failures.items():
            raise Unvalidated(f"{batch_id}: {failure.reason}")

    def close(self) -> None:
        """Ends all processes. The next dispatcher starts unfinished validations again."""
        for slot in self._slots:
            slot.process.end()
        self._slots.clear()

    def _collect(self) -> None:
        for slot in list(self._slots):
            try:
                answer = slot.process.receive()
            except ProcessEnded:
                self._drop(slot)
                answer = b'"its process died"'
            if answer is not None:
                if slot.batch_id is not None:
                    error = json.loads(answer)
                    self._note(slot.batch_id, error)
                    self._trace(slot, has_failed=error is not None)
                slot.batch_id = slot.tenant_id = None

    def _trace(self, slot: _Slot, *, has_failed: bool) -> None:
        parent = None if slot.traceparent is None else TraceContext.parse(slot.traceparent)
        if self._tracer is not None and parent is not None and parent.is_sampled:
            about = {"ponder.batch.id": slot.batch_id, "ponder.tenant.id": slot.tenant_id}
            self._tracer.export(
                Span(
                    "validation",
                    parent.trace_id,
                    parent.span_id,
                    slot.begun_at,
                    time(),
                    attributes=about,
                    has_failed=has_failed,
                )
            )

    def _note(self, batch_id: str, error: str | None) -> None:
        if error is None:
            self._failures.pop(batch_id, None)
        else:
            self._failures[batch_id] = _Failure(error, monotonic())

    def _resting(self) -> set[str]:
        """Returns the batches whose validation broke off a moment ago and would probably do so again."""
        return {batch_id for batch_id, failure in self._failures.items() if monotonic() - failure.at < _RETRY_S}

    def _stop(self, batch_ids: set[str]) -> None:
        for slot in list(self._slots):
            if slot.batch_id in batch_ids:
                self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        slot.process.end()
        self._slots.remove(slot)

    def _next(self, waiting: list[Row[Any]]) -> Row[Any] | None:
        """Returns the oldest batch of the tenant with the fewest running, or whose turn was longest ago."""
        running = Counter(slot.tenant_id for slot in self._slots if slot.batch_id is not None)
        if running.total() >= self._settings.validators:
            return None
        most = max(1, self._settings.validators // 2)
        allowed = [batch for batch in waiting if running[batch.tenant_id] < most]
        return min(
            allowed,
            key=lambda batch: (running[batch.tenant_id], self._turns.get(batch.tenant_id, 0)),
            default=None,
        )

    def _begin(self, batch: Row[Any]) -> None:
        slot = next((slot for slot in self._slots if slot.batch_id is None), None)
        if slot is None:
            slot = _Slot(LimitedProcess(answer_validation))
            self._slots.append(slot)
        slot.batch_id, slot.tenant_id = batch.id, batch.tenant_id
        slot.traceparent, slot.begun_at = batch.traceparent, time()
        self._turns[batch.tenant_id] = max(self._turns.values(), default=0) + 1
        request = {
            "database_url": self._database_url,  # sent, because everybody can see a process's command line
            "batch_id": batch.id,
            "allows_code": self._settings.allow_code,
            "limits": asdict(self._limits),
        }
        try:
            slot.process.send(json.dumps(request).encode())
        except ProcessEnded:
            self._drop(slot)


def answer_validation(request: bytes) -> bytes:
    """Runs in the other process. Returns JSON null, or the reason why the validation broke off."""
    asked = json.loads(request)
    limits = CheckLimits.from_document(asked["limits"])
    try:
        validate(
            _database(asked["database_url"]),
            asked["batch_id"],
            allows_code=asked["allows_code"],
            limits=limits.verifier,
            line=LineClock(limits).line,
        )
    except Exception as error:
        return json.dumps(brief(error)).encode()
    return b"null"


@lru_cache(maxsize=1)
def _database(url: str) -> Engine:
    os.nice(_NICENESS)
    return connect(url, pool_size=2)
