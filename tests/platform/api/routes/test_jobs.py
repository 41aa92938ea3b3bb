"""Jobs and reports, as clients see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from ponder.domain.state import Verdict
from ponder.jobs.dispatching.dispatcher_status import record
from ponder.jobs.tick import Settlement, Usage


@pytest.fixture
def job(http: httpx2.Client, submitted: Callable[..., Any], line: Callable[..., Any]) -> Callable[[], dict[str, Any]]:
    def newest() -> dict[str, Any]:
        [batch] = http.get("/v1/batches?limit=1").json()["data"]
        [found] = http.get(f"/v1/batches/{batch['id']}/jobs").json()["data"]
        answer: dict[str, Any] = http.get(f"/v1/jobs/{found['id']}").raise_for_status().json()
        assert found.items() <= answer.items()
        return answer

    return newest


def test_a_settled_job_shows_attempts_usage_cost_and_tree(
    worker: Any, submitted: Any, line: Any, job: Any, passed: Any
) -> None:
    submitted([line("a", metadata={"level": 4}, ponder={"reference": 7, "strategy": "self_consistency"})])
    worker.validate()
    worker.work(passed)
    shown = job()
    assert (shown["object"], shown["custom_id"], shown["line"], shown["state"]) == ("job", "a", 1, "completed")
    assert (shown["verdict"], shown["answer"], shown["strategy"], shown["level"]) == (
        "passed",
        "7",
        "self_consistency",
        "4",
    )
    assert shown["usage"]["completion_tokens"] == 12
    assert shown["cost"]["direct_nanodollars"] == shown["cost"]["by_kind"]["work"] > 0
    [attempt] = shown["attempts"]
    assert (attempt["machine"], attempt["market"], attempt["outcome"]) == ("cpu", "on_demand", "settled")
    assert shown["tree"]["nodes"] == [{"parent": -1}]
    assert shown["waiting"] is None


def test_a_judged_job_says_whose_its_verdict_is_and_what_the_reference_says_wherever_it_is_shown(
    worker: Any, submitted: Any, line: Any, passed: Any, http: httpx2.Client
) -> None:
    lines = [line("a", ponder={"reference": 7, "verifier": "judge"}), line("b", ponder={"reference": 7})]
    batch = submitted(lines)
    worker.validate()

    def settle(job_id: int) -> Settlement:
        usage = Usage(prompt_tokens=9, completion_tokens=12, judge_tokens=5)
        return replace(passed(job_id), usage=usage, checked=Verdict.FAILED if job_id == judged else None)

    judged = int(http.get(f"/v1/batches/{batch.id}/jobs").json()["data"][0]["id"].removeprefix("job_"))
    worker.work(settle)
    shown = http.get(f"/v1/batches/{batch.id}").json()
    assert (shown["ponder"]["num_by_judge"], shown["ponder"]["num_passed_by_judge"]) == (1, 1)
    assert shown["usage"]["output_tokens_details"]["judge_tokens"] == 10
    listed = http.get(f"/v1/batches/{batch.id}/jobs").json()["data"]
    assert [(one["judged"], one["checked"]) for one in listed] == [(True, "failed"), (False, None)]
    found = http.get(f"/v1/jobs/{listed[0]['id']}").json()
    assert (found["verdict"], found["judged"], found["checked"]) == ("passed", True, "failed")
    assert found["usage"]["judge_tokens"] == 5
    content = http.get(f"/v1/files/{shown['output_file_id']}/content").text
    body = json.loads(content.splitlines()[0])["response"]["body"]
    assert body["usage"]["completion_tokens_details"]["judge_tokens"] == body["ponder"]["judge_tokens"] == 5
    assert (body["ponder"]["judged"], body["ponder"]["checked"]) == (True, "failed")
    (measured, _) = http.get("/v1/measurements", params={"batch_id": batch.id}).json()["data"]
    assert (measured["judged"], measured["checked"], measured["judge_tokens"]) == (True, "failed", 5)


def test_a_waiting_job_says_why(
    worker: Any, submitted: Any, line: Any, job: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted([line()])
    assert http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]["reason"] == "validating"
    worker.validate()
    assert job()["waiting"]["reason"] == "window"
    assert http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]["reason"] == "window"
    worker.claim()
    assert job()["waiting"] is None
    shown = http.get(f"/v1/batches/{batch.id}").json()["ponder"]
    assert (shown["waiting"], shown["num_running"], shown["counts"]["pending"]) == (None, 1, 1)


def test_a_waiting_batch_or_job_says_that_the_dispatcher_fails(
    worker: Any, submitted: Any, line: Any, job: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted([line()])

    def waiting() -> dict[str, Any]:
        found: dict[str, Any] = http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]
        return found

    with engine.begin() as connection:
        record(connection, "publish: ModuleNotFoundError: No module named 'packaging'", holds_work_up=True)
    assert waiting()["reason"] == "dispatcher"
    assert "No module named 'packaging'" in waiting()["message"]
    worker.validate()
    assert (waiting(), job()["waiting"]["reason"]) == (job()["waiting"], "dispatcher")
    with engine.begin() as connection:
        connection.execute(text("UPDATE dispatcher SET seen_at = '2026-01-02 03:04:05Z'"))
    assert waiting()["message"].endswith("last seen 2026-01-02 03:04:05 UTC: start one with `ponder dispatcher`")
    worker.claim()
    assert (waiting(), job()["waiting"]) == (None, None)


def test_a_batch_whose_validation_breaks_off_says_why_it_waits(
    http: httpx2.Client, submitted: Callable[..., Any], line: Callable[..., Any], engine: Engine
) -> None:
    batch = submitted([line()])
    with engine.begin() as connection:
        record(connection, "validate: Unvalidated: its process died")
    waiting = http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]
    assert waiting["reason"] == "validating"
    assert "its process died" in waiting["message"]
    with engine.begin() as connection:
        record(connection, None)
    assert "died" not in http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"]["message"]


def test_a_batch_of_settled_jobs_that_nobody_finishes_says_so(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted([line()])
    worker.validate()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM dispatcher"))
        connection.execute(text("UPDATE jobs SET state = 'failed'"))
    shown = http.get(f"/v1/batches/{batch.id}").json()
    assert (shown["status"], shown["ponder"]["waiting"]["reason"]) == ("in_progress", "dispatcher")


def test_a_job_waits_for_its_tenants_quota(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, engine: Engine
) -> None:
    submitted([line()])
    worker.validate()
    worker.claim()
    second = submitted([line()])
    worker.validate()
    with engine.begin() as connection:
        connection.execute(text("UPDATE tenants SET quota_tokens = 1"))
    waiting = http.get(f"/v1/batches/{second.id}").json()["ponder"]["waiting"]
    assert waiting["reason"] == "quota"
    assert "quota of 1 tokens" in waiting["message"]


def test_tokens_are_counted_while_they_are_made(
    worker: Any, submitted: Any, line: Any, job: Any, http: httpx2.Client, passed: Any
) -> None:
    batch = submitted([line()])
    worker.validate()
    [job_id] = worker.claim()

    def generated() -> tuple[int, int]:
        ponder = http.get(f"/v1/batches/{batch.id}").json()["ponder"]
        return ponder["tokens_generated"], job()["usage"]["completion_tokens"]

    assert generated() == (0, 0)
    worker.tick(deltas={job_id: [{"nodes": [{"node": 0, "ids": [9] * 5}, {"node": 1, "ids": [1, 2, 3]}]}]})
    assert generated() == (3, 3)
    worker.tick(settled=[passed(job_id)])
    assert generated() == (12, 12)


def test_a_queued_job_says_how_many_tokens_are_before_it(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, engine: Engine
) -> None:
    first, second = submitted([line()]), submitted([line()])
    worker.validate()
    with engine.begin() as connection:
        from ponder.jobs.dispatching.dispatch import dispatch

        dispatch(connection, shard_tokens=200_000)
    jobs = [http.get(f"/v1/batches/{batch.id}/jobs").json()["data"][0]["id"] for batch in (first, second)]
    waiting = sorted((http.get(f"/v1/jobs/{job}").json()["waiting"] for job in jobs), key=lambda w: w["tokens_ahead"])
    assert [one["reason"] for one in waiting] == ["queued", "queued"]
    assert waiting[0]["tokens_ahead"] == 0 < waiting[1]["tokens_ahead"]


def test_a_job_without_a_worker_for_its_model_says_so(
    worker: Any, submitted: Any, line: Any, job: Any, engine: Engine
) -> None:
    submitted([line()])
    worker.validate()
    with engine.begin() as connection:
        connection.execute(text("UPDATE incarnations SET lease_until = clock_timestamp() - interval '1 second'"))
    waiting = job()["waiting"]
    assert waiting["reason"] == "no_worker"
    assert "demo" in waiting["message"]


def test_jobs_are_listed_by_line_and_state(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, passed: Any, failed: Any
) -> None:
    batch = submitted([line(str(number)) for number in range(5)])
    worker.validate()
    taken = worker.claim()
    worker.tick([passed(job_id) for job_id in taken[:2]] + [failed(taken[2])])
    path = f"/v1/batches/{batch.id}/jobs"
    page = http.get(path, params={"limit": 2}).json()
    assert ([job["line"] for job in page["data"]], page["has_more"]) == ([1, 2], True)
    page = http.get(path, params={"limit": 3, "after": page["last_id"]}).json()
    assert ([job["line"] for job in page["data"]], page["has_more"]) == ([3, 4, 5], False)
    failures = http.get(path, params={"state": "failed"}).json()["data"]
    assert [job["error"]["code"] for job in failures] == ["worker_lost"]
    assert [job["line"] for job in http.get(path, params={"custom_id": "3"}).json()["data"]] == [4]
    assert http.get(path, params={"custom_id": "3", "state": "failed"}).json()["data"] == []
    assert http.get(path, params={"custom_id": "\0"}).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/job_99", "/v1/jobs/job_x", "/v1/jobs/%00", "/v1/batches/batch_1%00", "/v1/files/x'--", "/v1/nothing"],
)
def test_unknown_ids_are_not_found(http: httpx2.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_cost_report_says_what_a_success_costs(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, passed: Any
) -> None:
    batch = submitted([line("a", ponder={"strategy": "direct"}), line("b", ponder={"strategy": "self_consistency"})])
    worker.validate()
    worker.work(passed)
    report = http.get("/v1/reports/cost", params={"by": "strategy,level", "batch_id": batch.id}).json()
    assert report["by"] == ["strategy", "level"]
    rows = {row["strategy"]: row for row in report["data"]}
    assert set(rows) == {"direct", "self_consistency"}
    assert (rows["direct"]["jobs"], rows["direct"]["passed"], rows["direct"]["accuracy"]) == (1, 1, 1.0)
    assert rows["direct"]["cost_per_successful_task"] >= rows["direct"]["direct_nanodollars"] > 0
    assert http.get("/v1/reports/cost?by=colour").json()["error"]["param"] == "by"


def test_only_operators_see_unassigned_overhead(http: httpx2.Client, stranger: httpx2.Client, worker: Any) -> None:
    worker.tick()
    assert http.get("/v1/reports/cost").json()["unassigned_nanodollars"] > 0
    assert http.get("/v1/reports/cost?batch_id=batch_00").json()["unassigned_nanodollars"] is None
    assert stranger.get("/v1/reports/cost").json()["unassigned_nanodollars"] is None


def test_a_price_is_set_by_date(http: httpx2.Client) -> None:
    body = {"machine": "h200", "market": "spot", "dollars_per_hour": "1.234567891", "source": "a contract"}
    price = http.put("/v1/prices", json=body).json()
    assert (price["nanodollars_per_hour"], price["dollars_per_hour"]) == (1_234_567_891, "1.234567891")
    [found] = [
        one for one in http.get("/v1/prices").json()["data"] if (one["machine"], one["market"]) == ("h200", "spot")
    ]
    assert found["nanodollars_per_hour"] == 1_234_567_891
    assert http.put("/v1/prices", json=body | {"dollars_per_hour": "-1"}).status_code == 400


def test_a_cancelled_batch_shows_its_jobs_as_cancelled_before_their_rows_follow(
    worker: Any, submitted: Any, line: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted([line()])
    worker.validate()
    shown = http.post(f"/v1/batches/{batch.id}/cancel").raise_for_status().json()
    assert shown["ponder"]["counts"]["cancelled"] == 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM jobs")).scalars().all() == ["pending"]
    (job,) = http.get(f"/v1/batches/{batch.id}/jobs", params={"state": "cancelled"}).json()["data"]
    assert job["state"] == "cancelled"
    one = http.get(f"/v1/jobs/{job['id']}").json()
    assert (one["state"], one["waiting"]) == ("cancelled", None)
    assert http.get(f"/v1/batches/{batch.id}/jobs", params={"state": "pending"}).json()["data"] == []


def test_a_job_that_was_submitted_without_traces_has_none(worker: Any, submitted: Any, line: Any, job: Any) -> None:
    submitted([line("a")])
    worker.validate()
    assert job()["trace_id"] is None


def test_the_tree_of_a_pending_job_is_what_its_workers_have_saved(
    worker: Any, submitted: Any, line: Any, job: Any, http: httpx2.Client, stranger: httpx2.Client
) -> None:
    submitted([line("a", ponder={"strategy": "best_of_n"})])
    worker.validate()
    [job_id] = worker.claim()
    path = f"/v1/jobs/{job()['id']}/tree"
    assert http.get(path).json()["tree"] is None
    rows = [{"node": 0, "ids": [1, 2]}, {"node": 1, "parent": 0, "ordinal": 0, "ids": [3, 4, 5], "text": "7"}]
    worker.tick(deltas={job_id: [{"nodes": rows}]})
    shown = http.get(path).json()
    assert (shown["growing"], shown["strategy"]) == (True, "best_of_n")
    assert [node["tokens"] for node in shown["tree"]["nodes"]] == [0, 3]
    [attempt] = job()["attempts"]
    assert shown["tree"]["made_by"] == [{"incarnation_id": attempt["incarnation_id"], "first_node": 1}]
    assert stranger.get(path).status_code == 404


def test_the_tree_of_a_settled_job_says_who_made_it(
    worker: Any, submitted: Any, line: Any, job: Any, http: httpx2.Client, passed: Any
) -> None:
    submitted([line("a")])
    worker.validate()
    worker.work(passed)
    shown = http.get(f"/v1/jobs/{job()['id']}/tree").json()
    assert shown["growing"] is False
    assert shown["tree"]["nodes"] == [{"parent": -1}]
    assert shown["tree"]["made_by"] == [{"incarnation_id": "inc_0123456789abcdef01234567", "first_node": 1}]
