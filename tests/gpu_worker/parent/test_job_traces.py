"""The traces of a worker's jobs, with a real Postgres and an engine process that says what it is told to say."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text

from ponder.domain.state import IncarnationState, Verdict
from ponder.jobs import incarnation
from ponder.trace import attempt_span, job_span, trace_of
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.heartbeat import Heartbeat
from ponder_worker.parent.intake import Intake
from ponder_worker.parent.registration import Identity
from ponder_worker.parent.settlement import Settling
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import (
    Admit,
    Choice,
    Command,
    Drop,
    EndedSpan,
    EngineMetrics,
    HandOn,
    JobResult,
    Report,
    Usage,
)
from ponder_worker.verify import Judgement

from ..shard import queue_shard_of_two

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
from opentelemetry.sdk.trace import ReadableSpan
from spans import Traced, ids, seconds

from ponder_worker.parent.job_traces import JobTraces

SUBMISSION = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REPORT = Report(1, False, (), 0.0, {}, (), 1000, 1, False, EngineMetrics())


class Site:
    """Intake and heartbeat of one incarnation, which has taken a shard of two jobs."""

    def __init__(self, engine: Engine, *, is_traced: bool = True) -> None:
        self.database = engine
        self.sent: list[Command] = []
        self.reports: list[Report] = []
        self.traced = Traced()
        capacity = WorkerCapacity()
        identity = Identity("inc", "w", "m", "cpu", "spot")
        self.traces = JobTraces(self.traced.tracer, identity)
        with engine.begin() as connection:
            incarnation.register(
                connection, id="inc", worker="w", host="h", pid=1, model="m", machine="cpu", market="spot", lease_s=30
            )
            incarnation.ready(
                connection, "inc", fingerprint="f", context_length=100, has_reward_model=False, room_tokens=1000
            )
            self.shard_id = queue_shard_of_two(connection)
            connection.execute(
                text("UPDATE batches SET in_progress_at = clock_timestamp(), traceparent = :it"),
                {"it": SUBMISSION if is_traced else None},
            )
            connection.execute(text("""UPDATE jobs SET request = '{"verifier": {"name": "exact"}}'"""))
        self.judgement: Future[Judgement] = Future()
        handle = cast("EngineHandle", self)
        self.heartbeat = Heartbeat(
            engine,
            "inc",
            handle,
            capacity,
            Settling(lambda case, whose: self.judgement, self.traces),
            bridge=VerifierBridge(lambda case, whose: self.judgement, capacity),
            tick_s=0.05,
            lease_s=30,
            on_drain=lambda within_s: None,
            traces=self.traces,
        )
        self.heartbeat.become(IncarnationState.READY)
        capacity.report(1000, 0)
        intake = Intake(
            database=engine,
            incarnation_id="inc",
            fingerprint="f",
            capacity=capacity,
            engine=handle,
            on_end=lambda error: pytest.fail(str(error)),
            traces=self.traces,
        )
        assert intake.take(self.shard_id)
        (self.admit,) = (command for command in self.sent if isinstance(command, Admit))
        self.job_id, self.other_id = (job.job_id for job in self.admit.jobs)
        self.trace_id = trace_of("b", self.job_id)
        self.attempt_id = attempt_span(self.trace_id, self.shard_id, "inc")

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def receive(self, timeout_s: float) -> Report | None:
        return self.reports.pop(0) if self.reports else None

    def beat(self, **said: Any) -> None:
        self.reports.append(replace(REPORT, **said))
        self.heartbeat.beat()

    def result(self) -> JobResult:
        choice = Choice("4", "4", "stop", None)
        return JobResult(self.job_id, None, "stop", (choice,), Usage(completion_tokens=7), {"nodes": []})

    def of(self, job_id: int) -> dict[str, ReadableSpan]:
        """The spans of a job's trace, of which no two have the same name."""
        found = [span for span in self.traced.spans if ids(span)[0] == trace_of("b", job_id)]
        assert max(Counter(span.name for span in found).values()) == 1
        return {span.name: span for span in found}


@pytest.fixture
def site(engine: Engine) -> Site:
    return Site(engine)


@pytest.mark.parametrize(
    "broken", ["ponder_worker.parent.intake.origin_of", "ponder_worker.parent.intake.JobTraces.claim"]
)
def test_a_trace_that_cannot_begin_costs_no_job(engine: Engine, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*args: object, **more: object) -> None:
        raise KeyError("a trace")

    monkeypatch.setattr(broken, fail)
    site = Site(engine)
    assert [job.attempt_span for job in site.admit.jobs] == [None, None]
    site.beat(results=(site.result(),))


def _parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_a_job_that_settles_ends_its_trace(site: Site) -> None:
    assert next(job.attempt_span for job in site.admit.jobs) == site.attempt_id
    now_s = time.monotonic()
    round_ = EndedSpan(site.job_id, "round", 77, site.attempt_id, now_s, now_s + 0.01, {"ponder.round": 1})
    site.beat(results=(site.result(),), spans=(round_,))
    threading.Timer(0.05, site.judgement.set_result, [Judgement(Verdict.PASSED)]).start()
    site.beat()
    site.beat()

    spans = site.of(site.job_id)
    assert spans.keys() == {
        *("job", "queueing", "attempt", "claim", "round", "verification", "tick", "settlement"),
    }
    root = job_span(site.trace_id)
    assert ids(spans["job"]) == (site.trace_id, root)
    assert _parent(spans["job"]) is None
    assert _parent(spans["queueing"]) == _parent(spans["attempt"]) == root
    inside = ("claim", "round", "verification", "tick", "settlement")
    assert {_parent(spans[name]) for name in inside} == {ids(spans["attempt"])[1]} == {site.attempt_id}
    assert ids(spans["round"])[1] == 77
    for name in inside:
        began_at, ended_at = seconds(spans[name])
        assert seconds(spans["attempt"])[0] <= began_at <= ended_at <= seconds(spans["attempt"])[1]
    assert seconds(spans["verification"])[1] <= seconds(spans["settlement"])[0] + 1e-6
    assert seconds(spans["queueing"])[1] <= seconds(spans["claim"])[0] + 1e-6
    about = dict(spans["job"].attributes or {})
    assert (about["ponder.verdict"], about["ponder.tokens.completion"], about["ponder.state"]) == (
        "passed",
        7,
        "completed",
    )
    assert (about["ponder.machine"], about["ponder.market"], about["ponder.model"]) == ("cpu", "spot", "m")


def test_a_tick_belongs_to_the_jobs_of_which_it_saves_something(site: Site) -> None:
    site.beat(deltas={site.job_id: {"nodes": [{"node": 1, "ids": [1]}]}})
    assert "tick" in site.of(site.job_id)
    assert "tick" not in site.of(site.other_id)


def test_what_a_preempted_worker_holds_is_handed_back_in_its_trace(site: Site) -> None:
    site.traces.handed_back()
    for job_id in (site.job_id, site.other_id):
        spans = site.of(job_id)
        assert spans.keys() == {"queueing", "claim", "attempt"}
        assert dict(spans["attempt"].attributes or {})["ponder.outcome"] == "preempted"


def test_a_job_that_goes_on_with_the_next_model_ends_its_attempt_alone(site: Site) -> None:
    site.beat(handed_on=(HandOn(site.job_id, "m2", "f2"),))
    spans = site.of(site.job_id)
    assert dict(spans["attempt"].attributes or {})["ponder.outcome"] == "handed_on"
    assert "job" not in spans


def test_a_dropped_job_still_tells_its_last_spans(site: Site) -> None:
    with site.database.begin() as connection:
        connection.execute(text("UPDATE batches SET state = 'cancelled'"))
    site.beat()
    assert any(isinstance(command, Drop) for command in site.sent)
    site.beat(spans=(EndedSpan(site.job_id, "round", 77, site.attempt_id, 1.0, 2.0),))
    assert dict(site.of(site.job_id)["attempt"].attributes or {})["ponder.outcome"] == "dropped"
    assert "round" in site.of(site.job_id)
    site.beat(spans=(EndedSpan(site.job_id, "scoring", 78, site.attempt_id, 1.0, 2.0),))
    assert "scoring" not in site.of(site.job_id)


def test_jobs_of_a_batch_that_is_not_traced_have_no_spans(engine: Engine) -> None:
    site = Site(engine, is_traced=False)
    assert {job.attempt_span for job in site.admit.jobs} == {None}
    site.beat(results=(site.result(),))
    site.judgement.set_result(Judgement(Verdict.PASSED))
    site.beat()
    assert site.traced.spans == ()
