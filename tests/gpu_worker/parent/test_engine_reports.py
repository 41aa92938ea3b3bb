from __future__ import annotations

import threading
from typing import cast

import pytest

from ponder_worker.parent.engine_handle import Closed, EngineHandle
from ponder_worker.parent.engine_reports import EngineReports, EngineStuck
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Command, EngineMetrics, Event, Report, ReportRequest

from ..claimed_job import claimed_job

NEVER = threading.Event()


def _report(room_tokens: int = 100, *, is_last: bool = False) -> Report:
    return Report(1, False, (), 0.0, {}, (), room_tokens, 1, is_last, EngineMetrics())


class ScriptedEngine:
    """Says what the test has put into `events`."""

    def __init__(self) -> None:
        self.events: list[Event | Closed] = []
        self.sent: list[Command] = []

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def receive(self, timeout_s: float) -> Event | Closed | None:
        return self.events.pop(0) if self.events else None


def _reports(engine: ScriptedEngine, capacity: WorkerCapacity, *, patience_s: float = 30) -> EngineReports:
    return EngineReports(cast("EngineHandle", engine), capacity, patience_s=patience_s)


def test_a_late_report_answers_the_request_that_is_out_and_no_second_one_is_sent_beside_it() -> None:
    engine, capacity = ScriptedEngine(), WorkerCapacity()
    reports = _reports(engine, capacity)
    assert reports.receive(0.01, NEVER) is None
    assert reports.receive(0.01, NEVER) is None
    assert engine.sent == [ReportRequest()]
    engine.events.append(_report())
    assert reports.receive(1, NEVER) == _report()
    assert reports.receive(0.01, NEVER) is None
    assert engine.sent == [ReportRequest()] * 2


def test_what_was_handed_over_after_the_request_is_not_in_the_room_that_is_reported() -> None:
    engine, capacity = ScriptedEngine(), WorkerCapacity()
    reports = _reports(engine, capacity)
    reports.receive(0.01, NEVER)
    capacity.add([claimed_job(1)], 60)
    engine.events.append(_report(100))
    reports.receive(1, NEVER)
    assert capacity.room_tokens == 40


def test_an_engine_that_leaves_a_request_unanswered_for_too_long_is_stuck() -> None:
    reports = _reports(ScriptedEngine(), WorkerCapacity(), patience_s=0.05)
    assert reports.receive(0.01, NEVER) is None
    with pytest.raises(EngineStuck, match=r"0\.05 s"):
        reports.receive(0.1, NEVER)


def test_an_engine_that_is_gone_is_not_waited_for() -> None:
    engine = ScriptedEngine()
    engine.events.append(Closed())
    assert _reports(engine, WorkerCapacity()).receive(600, NEVER) is None


def test_a_last_report_that_is_there_already_is_taken_after_a_slow_tick() -> None:
    engine = ScriptedEngine()
    engine.events += [_report(1), _report(2, is_last=True)]
    assert [report.room_tokens for report in _reports(engine, WorkerCapacity()).drain(until=0.0)] == [1, 2]


def test_draining_ends_with_the_last_report() -> None:
    engine = ScriptedEngine()
    engine.events += [_report(1), _report(2, is_last=True), _report(3)]
    drained = [report.room_tokens for report in _reports(engine, WorkerCapacity()).drain(until=float("inf"))]
    assert drained == [1, 2]
