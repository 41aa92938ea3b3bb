"""What is measured, as clients see it: jobs one by one, workers over time, and runs of `ponder bench`."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from ponder.api.routes.measuring import bench_runs
from ponder.jobs.retention.prune import prune
from ponder.jobs.tick_report import WorkerSample
from ponder.jobs.worker_sample import keep

INCARNATION = "inc_0123456789abcdef01234567"


@pytest.fixture
def sampled(worker: Any, engine: Engine) -> Any:
    """Adds a sample of the worker, some seconds old."""

    def add(age_s: float = 0.0, **numbers: float) -> None:
        before = {"generated_tokens": 100.0}
        after = {"generated_tokens": 160.0, "num_running": 3, "kv_cache_usage_perc": 0.25, **numbers}
        with engine.begin() as connection:
            now = connection.execute(text("SELECT clock_timestamp() - :age * interval '1 second'"), {"age": age_s})
            keep(connection, INCARNATION, now.scalar_one(), WorkerSample.of(before, after, 2.0))

    return add


def _samples(client: httpx2.Client) -> list[dict[str, Any]]:
    query: dict[str, float] = {"since": time.time() - 100, "until": time.time() + 100}
    answer = client.get("/v1/worker-samples", params=query).raise_for_status().json()
    data: list[dict[str, Any]] = answer["data"]
    return data


def test_a_settled_job_is_measured_to_the_microsecond_with_its_candidates(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, passed: Any
) -> None:
    batch = submitted([line("p1#0", metadata={"level": 2}), line("p2#0")])
    worker.validate()
    worker.work(passed)
    found = http.get("/v1/measurements", params={"batch_id": batch.id}).raise_for_status().json()
    first, second = found["data"]
    assert [first["custom_id"], second["custom_id"], first["level"]] == ["p1#0", "p2#0", "2"]
    assert first["submitted_at"] <= first["created_at"] <= first["started_at"] <= first["settled_at"]
    assert (first["completion_tokens"], first["thinking_tokens"], first["verdict"]) == (12, 3, "passed")
    assert first["direct_nanodollars"] > 0
    assert first["candidates"] == []
    assert "7" in first["answer"]


def test_the_candidates_of_a_cascade_are_those_of_the_stage_that_answered(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, passed: Any, engine: Engine
) -> None:
    batch = submitted([line("p1#0")])
    worker.validate()
    worker.work(passed)
    stages = [{"candidates": [{"answer": answer, "score": None}]} for answer in ("6", "7")]
    with engine.begin() as connection:
        tree = json.dumps({"stages": stages, "answered_by": 1})
        connection.execute(text("UPDATE search_trees SET tree = :tree"), {"tree": tree})
    (found,) = http.get("/v1/measurements", params={"batch_id": batch.id}).json()["data"]
    assert found["candidates"] == [{"answer": "7", "score": None}]


def test_measurements_come_in_pages_and_only_to_their_tenant(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, stranger: httpx2.Client
) -> None:
    batch = submitted([line(f"p{index}#0") for index in range(3)])
    worker.validate()
    query: dict[str, Any] = {"batch_id": [batch.id], "limit": 2}
    first = http.get("/v1/measurements", params=query).json()
    rest = http.get("/v1/measurements", params=query | {"after": first["last_id"]}).json()
    assert [one["state"] for one in first["data"] + rest["data"]] == ["pending"] * 3
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert stranger.get("/v1/measurements", params=query).json()["data"] == []


def test_a_sample_tells_what_happened_in_its_own_seconds(sampled: Any, http: httpx2.Client) -> None:
    sampled()
    [sample] = _samples(http)
    assert (sample["generated_tokens"], sample["num_running"], sample["kv_usage"]) == (60, 3, 0.25)
    assert (sample["worker"], sample["model"], sample["seconds"]) == ("w1", "demo", 2.0)


def test_a_tenant_sees_only_workers_that_held_nobody_elses_jobs(
    sampled: Any, worker: Any, submitted: Any, line: Any, http: httpx2.Client, stranger: httpx2.Client, engine: Engine
) -> None:
    sampled()
    assert _samples(stranger) == []
    submitted([line("theirs")])
    worker.validate()
    worker.claim()
    assert _samples(stranger) == []
    with engine.begin() as connection:  # as if the job were the stranger's
        connection.execute(text("UPDATE attempts SET tenant_id = (SELECT id FROM tenants WHERE name = 'strangers')"))
    assert len(_samples(stranger)) == 1
    assert len(_samples(http)) == 1


def test_old_samples_are_deleted(sampled: Any, http: httpx2.Client, engine: Engine) -> None:
    sampled(age_s=8 * 86_400)
    sampled(age_s=6 * 86_400)
    prune(engine, for_s=0.0)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM worker_samples")).scalar_one() == 1


def test_a_bench_run_is_kept_as_it_was_sent_for_its_tenant_alone(http: httpx2.Client, stranger: httpx2.Client) -> None:
    document = {"cells": [{"pass_1": 0.5}], "version": 1}
    kept = http.post("/v1/bench/runs", json={"name": "demo", "document": document}).raise_for_status().json()
    assert http.get(f"/v1/bench/runs/{kept['id']}").json()["document"] == document
    assert [run["id"] for run in http.get("/v1/bench/runs").json()["data"]] == [kept["id"]]
    assert stranger.get(f"/v1/bench/runs/{kept['id']}").status_code == 404
    assert stranger.get("/v1/bench/runs").json()["data"] == []
    assert stranger.delete(f"/v1/bench/runs/{kept['id']}").status_code == 404
    assert http.delete(f"/v1/bench/runs/{kept['id']}").json()["deleted"]
    assert http.get("/v1/bench/runs").json()["data"] == []


def test_a_tenant_keeps_only_so_many_runs(http: httpx2.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_runs, "_MOST", 1)
    run = {"name": "demo", "document": {}}
    http.post("/v1/bench/runs", json=run).raise_for_status()
    answer = http.post("/v1/bench/runs", json=run)
    assert answer.status_code == 409
    assert "ponder bench delete" in answer.json()["error"]["message"]


def test_the_run_of_a_large_suite_is_kept(http: httpx2.Client) -> None:
    points = [{"at_s": 123.25, "kv_usage": 0.1234, "num_running": 123, "tokens_per_s": 1234.5}] * 300
    document = {"cells": [{"points": points}] * 64}
    http.post("/v1/bench/runs", json={"name": "demo", "document": document}).raise_for_status()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no JSON", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"name": "x", "document": {"a": "\\u0000"}}', "document.a contains a NUL character"),
        (b'{"name": "x", "document": {"a": NaN}}', "document.a is not a finite number"),
        (b'{"name": "x"}', "document: is missing"),
    ],
)
def test_what_is_no_run_is_refused_with_the_place(http: httpx2.Client, body: bytes, message: str) -> None:
    answer = http.post("/v1/bench/runs", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)
