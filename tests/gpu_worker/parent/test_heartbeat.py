"""The tick against a real Postgres whose answers get lost, and an engine process that says what it is told to say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from ponder.domain.state import IncarnationState, Verdict
from ponder.errors import LeaseLost
from ponder.jobs import incarnation
from ponder.jobs.claim import Claim, claim
from ponder.jobs.drain import drain
from ponder.jobs.release import abandon
from ponder.jobs.tick import Usage, Work
from ponder.ledger.book import check
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.engine_reports import EngineStuck
from ponder_worker.parent.heartbeat import Heartbeat
from ponder_worker.parent.settlement import Settling, Submit
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Ask, Choice, Command, Drop, EngineMetrics, HandOn, JobResult, Learn, Report
from ponder_worker.verify import Judgement

from ..shard import queue_shard_of_two
from ..unreliable_database import Moment, UnreliableDatabase


def submitting(judge: Callable[..., Verdict]) -> Submit:
    pool = ThreadPoolExecutor(1)
    return lambda case, whose: pool.submit(lambda: Judgement(judge(case)))


REPORT = Report(
    num_steps=1,
    awaits_verdicts=False,
    work=(),
    idle_fraction=0.0,
    deltas={},
    results=(),
    room_tokens=1000,
    num_jobs=1,
    is_last=False,
    metrics=EngineMetrics(),
)


class ScriptedEngine:
    """Answers each request for a report with the next one of `reports`, and with nothing when there is none."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.sent: list[Command] = []
        self.is_alive = True

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def receive(self, timeout_s: float) -> Report | None:
        return self.reports.pop(0) if self.reports else None

    def say(self, **fields: Any) -> None:
        self.reports.append(replace(REPORT, **fields))


class Worker:
    """A heartbeat that holds one shard of two jobs."""

    def __init__(self, engine: Engine, judge: Callable[..., Verdict], lease_s: float = 30) -> None:
        self.database = UnreliableDatabase(engine)
        self.engine = ScriptedEngine()
        self.capacity = WorkerCapacity()
        self.claim = _claim(engine, lease_s)
        self.capacity.add(self.claim.jobs, 10)
        self.asked: Future[Judgement] = Future()
        """A question of a search that nobody answers."""
        self.seconds_to_drain: list[float] = []
        self.bridge = VerifierBridge(lambda case, whose: self.asked, self.capacity)
        self.heartbeat = Heartbeat(
            cast("Engine", self.database),
            "inc",
            cast("EngineHandle", self.engine),
            self.capacity,
            Settling(submitting(judge)),
            bridge=self.bridge,
            tick_s=0.05,
            lease_s=lease_s,
            on_drain=self.seconds_to_drain.append,
        )
        self.heartbeat.become(IncarnationState.READY)
        self.job_id = self.claim.jobs[0].job_id

    def beat(self, **report: Any) -> None:
        self.engine.say(**report)
        self.heartbeat.beat()

    def delta(self, *ids: int) -> dict[str, Any]:
        return {"deltas": {self.job_id: {"nodes": [{"node": 1, "ids": list(ids)}]}}}

    def result(self, **learned: float) -> JobResult:
        choice = Choice("Answer: 4", "4", "stop", None)
        usage = Usage(1, 1, 1, 1, 1, 1)
        return JobResult(self.job_id, None, "stop", (choice,), usage, {"nodes": []}, learned)


@pytest.fixture
def worker(engine: Engine) -> Worker:
    return Worker(engine, lambda *_: Verdict.PASSED)


def _claim(engine: Engine, lease_s: float) -> Claim:
    with engine.begin() as connection:
        incarnation.register(
            connection, id="inc", worker="w", host="h", pid=1, model="m", machine="cpu", market="spot", lease_s=lease_s
        )
        incarnation.ready(
            connection, "inc", fingerprint="f", context_length=100, has_reward_model=False, room_tokens=1000
        )
        shard_id = queue_shard_of_two(connection)
        claimed = claim(connection, shard_id, "inc")
        assert claimed is not None
        return claimed


def _ids(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        deltas = connection.execute(text("SELECT delta FROM tree_deltas ORDER BY id")).scalars()
        return [token for delta in deltas for node in delta["nodes"] for token in node["ids"]]


def _check_ledger(engine: Engine) -> None:
    with engine.begin() as connection:
        check(connection, "inc")


def _state(engine: Engine, job_id: int) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT state FROM jobs WHERE id = :id"), {"id": job_id}).scalar_one())


def _lease(engine: Engine) -> datetime:
    with engine.connect() as connection:
        until: datetime = connection.execute(text("SELECT lease_until FROM incarnations")).scalar_one()
        return until


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_tick_whose_commit_is_not_answered_is_saved_exactly_once(
    engine: Engine, worker: Worker, moment: Moment
) -> None:
    worker.beat(**worker.delta(1, 2))
    worker.database.fails = moment
    worker.beat(**worker.delta(3))
    worker.beat(**worker.delta(4, 5))
    assert _ids(engine) == [1, 2, 3, 4, 5]
    _check_ledger(engine)


def test_what_is_reported_during_an_outage_is_saved_after_it(engine: Engine, worker: Worker) -> None:
    for token in range(5):
        worker.database.fails = "before"
        worker.beat(**worker.delta(token))
    assert _ids(engine) == []
    worker.beat(**worker.delta(5))
    assert _ids(engine) == [0, 1, 2, 3, 4, 5]
    _check_ledger(engine)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_settlement_whose_commit_is_not_answered_counts_once(engine: Engine, worker: Worker, moment: Moment) -> None:
    worker.database.fails = moment
    worker.beat(results=(worker.result(),))
    worker.beat()
    assert _state(engine, worker.job_id) == "completed"
    assert worker.job_id not in worker.capacity.job_ids
    _check_ledger(engine)


def _num_counted(worker: Worker) -> float:
    samples = (sample for metric in worker.heartbeat.job_metrics.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == "ponder_worker_settled_jobs_total")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_settled_job_is_counted_once_postgres_has_confirmed_it(worker: Worker, moment: Moment) -> None:
    worker.database.fails = moment
    worker.beat(results=(worker.result(),))
    assert _num_counted(worker) == 0
    worker.beat()
    worker.beat()
    assert _num_counted(worker) == 1


def test_a_job_that_was_cancelled_before_its_settlement_is_not_counted(engine: Engine, worker: Worker) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'cancelled' WHERE id = :id"), {"id": worker.job_id})
    worker.beat(results=(worker.result(),))
    assert worker.job_id not in worker.capacity.job_ids
    assert _num_counted(worker) == 0


def test_a_settled_job_has_the_times_of_the_latency_report(engine: Engine, worker: Worker) -> None:
    token_ms = int(worker.claim.jobs[0].created_at.timestamp() * 1_000) + 5
    worker.beat(results=(replace(worker.result(), first_token_ms=token_ms, first_visible_token_ms=token_ms + 1),))
    sums = {
        sample.name.removeprefix("ponder_worker_job_").removesuffix("econds_sum"): sample.value
        for metric in worker.heartbeat.job_metrics.collect()
        for sample in metric.samples
        if sample.name.endswith("_sum") and sample.labels == {"lane": "batch"}
    }
    with engine.connect() as connection:
        (row,) = connection.execute(
            text("SELECT end_to_end_s, first_token_s, first_visible_token_s FROM job_latencies WHERE job_id = :id"),
            {"id": worker.job_id},
        )
    assert sums == {name: pytest.approx(float(value), abs=1e-6) for name, value in row._mapping.items()}


def test_the_ledger_is_held_against_the_bill_when_work_has_ended(engine: Engine, worker: Worker) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE incarnations SET started_at = started_at - interval '1 hour'"))
    with capture_logs() as logged:
        worker.beat(**worker.delta(1))
    assert logged == [], "not while it has work"
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'cancelled'"))
    with capture_logs() as logged:
        worker.beat()
        worker.beat(num_jobs=0)
    assert [entry["event"] for entry in logged] == ["ledger_does_not_balance"], "told once"


def test_a_verifier_that_takes_long_holds_up_no_tick(engine: Engine) -> None:
    may_answer = threading.Event()

    def judge(*_: object) -> Verdict:
        may_answer.wait(10)
        return Verdict.PASSED

    worker = Worker(engine, judge)
    worker.beat(**worker.delta(1), results=(worker.result(),))
    assert _ids(engine) == [1]
    assert _state(engine, worker.job_id) == "pending"
    may_answer.set()
    worker.beat()
    assert _state(engine, worker.job_id) == "completed"


def test_a_job_that_was_cancelled_is_stopped_and_forgotten(engine: Engine, worker: Worker) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'cancelled' WHERE id = :id"), {"id": worker.job_id})
    worker.bridge.answer(Ask(worker.job_id, 0, "4"), worker.engine.send)
    worker.beat(**worker.delta(1), work=(Work(worker.job_id, 1.0),))
    assert Drop((worker.job_id,)) in worker.engine.sent
    assert worker.job_id not in worker.capacity.job_ids
    assert worker.asked.cancelled()
    worker.beat(results=(worker.result(),))
    assert _state(engine, worker.job_id) == "cancelled"
    _check_ledger(engine)


def test_the_lease_is_not_extended_while_the_engine_makes_no_progress(engine: Engine, worker: Worker) -> None:
    before = _lease(engine)
    worker.beat(num_steps=0, num_jobs=2)
    assert _lease(engine) == before
    worker.beat(num_steps=0, num_jobs=0)
    assert _lease(engine) > before


@pytest.mark.parametrize("waits", [False, True])
def test_where_all_jobs_wait_for_verdicts_each_that_settles_extends_the_lease(
    engine: Engine, worker: Worker, waits: bool
) -> None:
    before = _lease(engine)
    worker.beat(num_steps=0, num_jobs=1, awaits_verdicts=waits)
    assert _lease(engine) == before, "the judge may be stuck"
    worker.beat(num_steps=0, num_jobs=1, awaits_verdicts=waits, results=(worker.result(),))
    assert _state(engine, worker.job_id) == "completed"
    assert (_lease(engine) > before) == waits, "and so may the engine, where it could go on"


def test_a_request_to_drain_is_told_once_and_again_when_it_leaves_less_time(engine: Engine, worker: Worker) -> None:
    for within_s in (60, 60, 5):
        with engine.begin() as connection:
            assert drain(connection, "inc", within_s=within_s)
        worker.beat()
        worker.beat()

    longer, shorter = worker.seconds_to_drain
    assert 50 < longer < 60
    assert 0 < shorter < 5


def test_an_incarnation_that_was_given_up_is_refused(engine: Engine, worker: Worker) -> None:
    worker.beat()
    with engine.begin() as connection:
        abandon(connection, "inc", reason="engine_died")
    with pytest.raises(LeaseLost):
        worker.beat(results=(worker.result(),))
    assert _state(engine, worker.job_id) == "pending"


def test_the_lease_is_held_for_as_long_as_ticks_are_confirmed(engine: Engine) -> None:
    worker = Worker(engine, lambda *_: Verdict.PASSED, lease_s=0.5)
    worker.beat()
    assert worker.heartbeat.holds_lease
    time.sleep(0.6)
    assert not worker.heartbeat.holds_lease


def test_an_engine_that_says_nothing_for_a_whole_lease_is_stuck(engine: Engine) -> None:
    worker = Worker(engine, lambda *_: Verdict.PASSED, lease_s=0.3)
    with pytest.raises(EngineStuck):
        worker.heartbeat.run()


def test_an_engine_in_a_long_step_is_not_stuck_because_the_database_was_slow(engine: Engine) -> None:
    worker = Worker(engine, lambda *_: Verdict.PASSED, lease_s=0.3)
    worker.beat()
    time.sleep(0.4)  # as if that tick's commit had been answered only now
    worker.heartbeat.beat()
    with pytest.raises(LeaseLost):
        worker.beat()


def test_the_last_tick_takes_what_the_engine_reports_when_it_stops(engine: Engine, worker: Worker) -> None:
    worker.engine.say(**worker.delta(1))
    worker.engine.say(**worker.delta(2), is_last=True)
    assert worker.heartbeat.drain(until=time.monotonic() + 1)
    assert _ids(engine) == [1, 2]
    _check_ledger(engine)


def test_what_a_job_has_taught_is_told_to_the_engine_once_it_is_saved(engine: Engine, worker: Worker) -> None:
    worker.beat(results=(worker.result(x=0.5),))
    assert Learn({"b": {"x": 0.5}}) in worker.engine.sent
    with engine.connect() as connection:
        assert connection.execute(text("SELECT sums FROM lessons")).scalar_one() == {"x": 0.5}


def test_a_job_that_is_handed_on_is_saved_let_go_and_asked_about_no_more(worker: Worker, engine: Engine) -> None:
    other = worker.claim.jobs[1].job_id
    worker.beat(**worker.delta(7, 8), handed_on=(HandOn(worker.job_id, "large", "f2"),))
    assert worker.capacity.job_ids == [other]
    assert _ids(engine) == [7, 8]
    with engine.connect() as connection:
        shards = connection.execute(text("SELECT model, fingerprint, job_ids FROM shards WHERE state = 'queued'")).all()
        outcomes = connection.execute(text("SELECT outcome FROM attempts ORDER BY job_id")).scalars().all()
    assert [tuple(shard) for shard in shards] == [("large", "f2", [worker.job_id])]
    assert outcomes == ["handed_on", None]
    assert not any(isinstance(command, Drop) for command in worker.engine.sent), "the engine let it go by itself"
    worker.beat()
    _check_ledger(engine)


def test_the_load_is_sampled_with_a_tick_but_not_with_every_one(engine: Engine, worker: Worker) -> None:
    def beat(generated_tokens: int, **gauges: float) -> None:
        worker.beat(metrics=EngineMetrics({"generated_tokens": generated_tokens, **gauges}))

    for generated, age_s in ((40, 3.0), (60, 0.0), (100, 3.0)):
        worker.heartbeat._sampled_at -= age_s
        beat(generated, num_running=2, kv_cache_usage_perc=0.5)
    worker.heartbeat._sampled_at -= 3.0
    beat(100)  # an idle worker writes nothing
    with engine.connect() as connection:
        query = text("SELECT generated_tokens, num_running, kv_usage FROM worker_samples ORDER BY at")
        assert connection.execute(query).all() == [(40, 2, 0.5), (60, 2, 0.5)]
