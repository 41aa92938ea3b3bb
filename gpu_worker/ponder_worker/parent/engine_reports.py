"""Asking the engine process for reports, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ponder_worker.parent.engine_handle import Closed, EngineHandle
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Report, ReportRequest

_SLICE_S = 0.1


class EngineStuck(Exception):
    """The engine has answered nothing for as long as the lease lasts."""


@dataclass(frozen=True, slots=True)
class _Requested:
    """A report is asked for. admitted_tokens: those that had been handed to the engine by then."""

    admitted_tokens: int
    at: float


class EngineReports:
    """Two states: no report is asked for, or one is. A late report answers the old request; none is sent beside it."""

    def __init__(self, engine: EngineHandle, capacity: WorkerCapacity, *, patience_s: float) -> None:
        """Gives the engine `patience_s` seconds to answer a request."""
        self._engine = engine
        self._capacity = capacity
        self._patience_s = patience_s
        self._request: _Requested | None = None

    def receive(self, timeout_s: float, stopping: threading.Event) -> Report | None:
        """Returns None if no report comes in time or before `stopping` is set. Raises EngineStuck."""
        if self._request is None:
            self._request = _Requested(self._capacity.admitted_tokens, time.monotonic())
            self._engine.send(ReportRequest())
        requested_at, give_up_at = self._request.at, time.monotonic() + timeout_s
        while (left := give_up_at - time.monotonic()) > 0 and not stopping.is_set():
            event = self._engine.receive(min(_SLICE_S, left))
            if isinstance(event, Report):
                self._take(event)
                return event
            if isinstance(event, Closed):
                break
        # Not by the lease: a database that was slow to answer may have used that up.
        if time.monotonic() > requested_at + self._patience_s:
            raise EngineStuck(f"no report from the engine process for {self._patience_s:g} s")
        return None

    def drain(self, until: float) -> Iterator[Report]:
        """Yields the reports up to the last one, or those that come before `until` (monotonic).

        A report that is there already is taken after `until`, too.
        """
        while True:
            event = self._engine.receive(max(0.0, until - time.monotonic()))
            if event is None or isinstance(event, Closed):
                break
            if isinstance(event, Report):
                self._take(event)
                yield event
                if event.is_last:
                    break

    def _take(self, report: Report) -> None:
        if self._request is not None:
            self._capacity.report(report.room_tokens, self._request.admitted_tokens)
            self._request = None
