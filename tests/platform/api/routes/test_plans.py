"""The plan of the fleet, the metrics that it rests on, and batches that will be late, as clients see them."""

from __future__ import annotations

import math
import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from ponder.domain.money import NANODOLLARS
from ponder.fleet import roster
from ponder.fleet.proposing.scope import LEADER
from ponder.fleet.provider import Order, Pool
from ponder.jobs.incarnation import register


@pytest.fixture
def pace(worker: Any, submitted: Any, line: Any, passed: Any, engine: Engine) -> Any:
    """Lets a job settle, and then says how many tokens a second it was."""

    def set_pace(tokens_per_s: float) -> None:
        submitted([line()])
        worker.validate()
        worker.work(passed)
        sums = "jsonb_build_object('time.cpu.n', 1, 'time.cpu.x', CAST(:rate AS float8), 'time.cpu.y', 1)"
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE observations SET sums = {sums}"), {"rate": tokens_per_s})
            connection.execute(text("DELETE FROM experience"))

    return set_pace


def _metric(http: httpx2.Client, name: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line.startswith(f"{name}{{")]
    return {labels.removeprefix(name): float(value) for labels, value in lines}


def _tokens(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(text("SELECT sum(estimated_tokens) FROM jobs WHERE state = 'pending'")).scalar_one()
        )


def test_the_plan_says_which_workers_are_wanted_and_why(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, pace: Any, engine: Engine
) -> None:
    pace(10.0)
    submitted([line(str(number)) for number in range(300)])
    worker.validate()
    (planned,) = http.get("/v1/fleet/plan", params={"max": 2}).raise_for_status().json()["data"]
    assert (planned["model"], planned["fingerprint"]) == ("demo", "f0")
    assert sum(load["tokens"] for load in planned["situation"]["loads"]) == _tokens(engine)
    (wanted,) = planned["wanted"]
    assert (wanted["machine"], wanted["market"], wanted["num_workers"]) == ("cpu", "spot", 1)
    assert f"{_tokens(engine):,} tokens" in wanted["reason"]
    assert [one["name"] for one in planned["alternatives"]] == ["nothing", "spot only", "on-demand only", "mixed"]
    price = min(offer["nanodollars_per_hour"] for offer in planned["situation"]["offers"])
    poor = {"max_dollars_per_hour": f"{price / NANODOLLARS / 2:.9f}"}
    (planned,) = http.get("/v1/fleet/plan", params=poor).raise_for_status().json()["data"]
    assert planned["wanted"] == []


def test_bounds_that_contradict_themselves_and_unknown_models_are_refused(http: httpx2.Client, worker: Any) -> None:
    refused = http.get("/v1/fleet/plan", params={"min": 3, "max": 2})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max")
    assert http.get("/v1/fleet/plan", params={"model": "nobody"}).status_code == 404
    assert http.get("/v1/fleet/plan", params={"max_dollars_per_hour": "much"}).status_code == 400


def test_the_metrics_tell_the_whole_backlog_its_time_and_the_slack(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, pace: Any, engine: Engine
) -> None:
    pace(2.0)
    submitted([line(str(number)) for number in range(1_000)])
    worker.validate()
    tokens = _tokens(engine)
    labels = '{lane="batch",model="demo"}'
    assert _metric(http, "ponder_backlog_tokens") == {labels: tokens}
    assert _metric(http, "ponder_backlog_seconds") == {labels: pytest.approx(tokens / 2)}
    (slack,) = _metric(http, "ponder_deadline_slack_seconds").values()
    assert slack == pytest.approx(86_400 - tokens / 2, abs=20)
    with engine.begin() as connection:
        connection.execute(text("UPDATE incarnations SET lease_until = clock_timestamp()"))
    assert _metric(http, "ponder_backlog_seconds") == {labels: math.inf}
    assert _metric(http, "ponder_deadline_slack_seconds") == {'{model="demo"}': -math.inf}


def test_work_that_may_not_run_asks_for_no_worker(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, pace: Any
) -> None:
    """A scaler that counted it would hold machines until the batch expires."""
    pace(2.0)
    batch = submitted([line(str(number)) for number in range(100)])
    worker.validate()
    labels = '{lane="batch",model="demo"}'
    whole = _metric(http, "ponder_backlog_tokens")
    assert _metric(http, "ponder_backlog_runnable_tokens") == whole
    assert _metric(http, "ponder_deadline_slack_seconds")
    http.patch(f"/v1/batches/{batch.id}", json={"ponder": {"paused": True}}).raise_for_status()
    assert _metric(http, "ponder_backlog_tokens") == whole
    assert _metric(http, "ponder_backlog_runnable_tokens") == {labels: 0}
    assert _metric(http, "ponder_backlog_seconds") == {labels: 0}
    assert _metric(http, "ponder_deadline_slack_seconds") == {}
    http.patch(f"/v1/batches/{batch.id}", json={"ponder": {"paused": False}}).raise_for_status()
    assert _metric(http, "ponder_backlog_runnable_tokens") == whole


def test_the_metrics_tell_whether_an_autoscaler_goes_on_and_what_it_did_lately(
    http: httpx2.Client, engine: Engine
) -> None:
    def silence() -> list[float]:
        found = [line.split() for line in http.get("/metrics").text.splitlines()]
        return [float(value) for name, value, *_ in found if name == "ponder_autoscaler_silent_seconds"]

    row = "INSERT INTO fleet_decisions (action, model, machine, market, reason, at) VALUES (:action, '', '', '', '', "
    with engine.begin() as connection:
        for action in ("start", "start", "failed"):
            connection.execute(text(f"{row} clock_timestamp())"), {"action": action})
        connection.execute(text(f"{row} clock_timestamp() - interval '2 hours')"), {"action": "failed"})
    assert _metric(http, "ponder_fleet_decisions") == {'{action="start"}': 2, '{action="failed"}': 1}
    assert silence() == []
    with engine.connect() as active:
        began = time.monotonic()
        active.execute(text(f"SELECT pg_advisory_lock({LEADER})"))
        time.sleep(0.3)
        (silent_s,) = silence()
        assert 0.2 < silent_s < time.monotonic() - began
        active.execute(text("SELECT pg_advisory_unlock_all()"))
    assert silence() == []


def test_a_batch_that_will_not_be_done_in_time_says_how_many_workers_would_make_it(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, pace: Any, engine: Engine
) -> None:
    def waiting() -> Any:
        return http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]

    pace(1_000.0)
    batch = submitted([line(str(number)) for number in range(300)])
    worker.validate()
    assert waiting()["reason"] == "window"
    tokens = _tokens(engine)
    with engine.begin() as connection:
        rate = "jsonb_build_object('time.cpu.x', CAST(:rate AS float8), 'time.cpu.y', 1)"
        # Half of what one worker would need.
        connection.execute(text(f"UPDATE observations SET sums = {rate}"), {"rate": tokens / 86_400 / 2})
    late = waiting()
    assert (late["reason"], late["tokens_ahead"]) == ("late", 0), "none but its own"
    assert "with 1 worker of demo it will not be done by" in late["message"]
    assert late["message"].endswith(": 3 would make it")
    worker.claim()
    assert waiting()["reason"] == "late"
    with engine.begin() as connection:
        connection.execute(text("UPDATE incarnations SET lease_until = clock_timestamp()"))
        connection.execute(text("UPDATE shards SET state = 'queued', holder = NULL"))
        connection.execute(text("UPDATE attempts SET ended_at = clock_timestamp()"))
    assert waiting()["reason"] == "no_worker"


def _start(connection: Connection) -> None:
    """Registers a worker that is loading."""
    register(
        connection, id="inc_" + "1" * 24, worker="loading", host="host", pid=1, model="demo", machine="cpu",
        market="spot", lease_s=3_600,
    )  # fmt: skip


def test_workers_that_load_count_and_a_machine_that_was_not_measured_makes_no_batch_late(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, pace: Any, engine: Engine
) -> None:
    def waiting() -> Any:
        return http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]

    pace(1.0)
    batch = submitted([line(str(number)) for number in range(300)])
    worker.validate()
    with engine.begin() as connection:
        rate = "jsonb_build_object('time.cpu.x', CAST(:rate AS float8), 'time.cpu.y', 1)"
        connection.execute(text(f"UPDATE observations SET sums = {rate}"), {"rate": _tokens(engine) / 86_400 * 0.8})
    assert waiting()["reason"] == "late"
    with engine.begin() as connection:
        _start(connection)
    assert waiting()["reason"] == "window", "two make it"
    with engine.begin() as connection:
        connection.execute(text("UPDATE incarnations SET machine = 'h100' WHERE worker = 'loading'"))
    assert waiting()["reason"] == "window", "nobody knows how much an h100 does"


def test_where_an_autoscaler_is_active_it_is_named_as_the_remedy(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, pace: Any, engine: Engine
) -> None:
    def message() -> str:
        waiting = http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]
        assert waiting["reason"] == "no_worker"
        return str(waiting["message"])

    batch = submitted([line()])
    worker.validate()
    with engine.begin() as connection:
        connection.execute(text("UPDATE incarnations SET lease_until = clock_timestamp()"))
    assert message().endswith("start one with `ponder worker`")
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({LEADER})"))
        assert message().endswith("an autoscaler is active, and `ponder fleet log` says what it does")
        roster.add(connection, Order("fleet-1", Pool("demo", "cpu", "spot"), 1, "fleet-1"), 1)
        connection.commit()
        assert message().endswith("the autoscaler is starting one")
        connection.execute(text(f"SELECT pg_advisory_unlock({LEADER})"))
        assert message().endswith("start one with `ponder worker`"), "whoever would start it is gone"
