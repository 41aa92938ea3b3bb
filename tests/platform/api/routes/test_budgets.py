"""Budgets of tenants and keys through the API: who may set and read them, and what a batch says that waits for one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import text

from ponder.domain.state import JobState, Verdict
from ponder.jobs.tick import Settlement, Usage

Submitted = Callable[..., openai.types.Batch]


@pytest.fixture
def own(http: httpx2.Client) -> dict[str, str]:
    """The ids of the operator's tenant and key."""
    key = http.get("/v1/keys").json()["data"][0]
    return {"tenant": key["tenant"], "key": key["id"]}


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({"dollars_per_day": -1}, "dollars_per_day"),
        ({"dollars_per_month": 0}, "dollars_per_month"),
        ({"dollars_per_day": "1"}, "dollars_per_day"),
        ({"tokens_per_day": 1.5}, "tokens_per_day"),
        ({"tokens_per_month": True}, "tokens_per_month"),
        ({"tokens_per_month": 10**16}, "tokens_per_month"),
        ({"tokens_per_week": 5}, "tokens_per_week"),
    ],
)
def test_a_malformed_limit_is_refused_by_its_field(
    http: httpx2.Client, own: dict[str, str], limits: dict[str, Any], param: str
) -> None:
    for path in (f"/v1/tenants/{own['tenant']}/budget", f"/v1/keys/{own['key']}/budget"):
        answer = http.patch(path, json=limits)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("owner", ["tenant", "key"])
def test_a_change_leaves_what_it_does_not_name_and_null_lifts_a_limit(
    http: httpx2.Client, own: dict[str, str], owner: str
) -> None:
    path = f"/v1/{owner}s/{own[owner]}/budget"

    def changed(**limits: Any) -> list[tuple[int | None, int | None] | None]:
        answer = http.patch(path, json=limits).raise_for_status().json()
        assert http.get(path).json() == answer
        assert (answer["tenant"], answer["key"]) == (own["tenant"], own["key"] if owner == "key" else None)
        periods = (answer["day"], answer["month"])
        return [one and (one["limit_nanodollars"], one["limit_tokens"]) for one in periods]

    assert changed() == [None, None]
    assert changed(dollars_per_day=0.5, tokens_per_month=1000) == [(500_000_000, None), (None, 1000)]
    assert changed(tokens_per_day=5) == [(500_000_000, 5), (None, 1000)]
    assert changed(dollars_per_day=None, tokens_per_month=None) == [(None, 5), None]
    assert changed(tokens_per_day=None) == [None, None]


def test_a_tenant_reads_its_own_budgets_and_sets_none(
    http: httpx2.Client, stranger: httpx2.Client, own: dict[str, str]
) -> None:
    (key,) = stranger.get("/v1/keys").json()["data"]
    paths = [f"/v1/tenants/{key['tenant']}/budget", f"/v1/keys/{key['id']}/budget"]
    for path in paths:
        http.patch(path, json={"tokens_per_day": 5}).raise_for_status()
        assert stranger.get(path).json()["day"]["limit_tokens"] == 5
        assert stranger.patch(path, json={"tokens_per_day": 50}).status_code == 403
    for path in (f"/v1/tenants/{own['tenant']}/budget", f"/v1/keys/{own['key']}/budget"):
        assert stranger.get(path).status_code == 404


def test_what_does_not_exist_is_not_found(http: httpx2.Client) -> None:
    for path in ("/v1/tenants/tenant_00/budget", "/v1/keys/key_00/budget", "/v1/tenants/x/budget"):
        assert http.get(path).status_code == 404
        assert http.patch(path, json={"tokens_per_day": 5}).status_code == 404


@pytest.mark.parametrize("owner", ["tenant", "key"])
def test_a_batch_that_waits_for_a_budget_says_for_which_and_until_when(
    http: httpx2.Client, own: dict[str, str], submitted: Submitted, line: Any, worker: Any, owner: str
) -> None:
    path = f"/v1/{owner}s/{own[owner]}/budget"
    http.patch(path, json={"tokens_per_day": 30}).raise_for_status()
    batch = submitted([line("a"), line("b")], budget={"tokens": 20})
    worker.validate()
    assert len(worker.claim()) == 1
    assert http.get(f"/v1/batches/{batch.id}").json()["ponder"]["waiting"] is None

    jobs = [job["id"] for job in http.get(f"/v1/batches/{batch.id}/jobs").json()["data"]]
    number = int(jobs[0].removeprefix("job_"))
    worker.tick([worker_settlement(number)], [number])
    assert worker.claim() == []
    worker.tick()
    own_object = http.get(f"/v1/batches/{batch.id}").json()
    waiting = own_object["ponder"]["waiting"]
    assert own_object["status"] == "in_progress"
    assert (waiting["reason"], waiting["budget"], waiting["is_exhausted"]) == ("budget", f"{owner}_day", True)
    assert 0 < waiting["renews_at"] - time.time() <= 86_400
    assert waiting["renews_at"] % 86_400 == 0
    assert f"the {owner}'s budget of the day: it renews at " in waiting["message"]
    assert http.get(path).json()["day"]["spent_tokens"] == 15


def test_a_batch_that_waits_for_what_others_have_reserved_is_not_exhausted(
    http: httpx2.Client, own: dict[str, str], submitted: Submitted, line: Any, worker: Any
) -> None:
    http.patch(f"/v1/tenants/{own['tenant']}/budget", json={"tokens_per_day": 30}).raise_for_status()
    first, second = (submitted([line("a")], budget={"tokens": 20}) for _ in range(2))
    worker.validate()
    assert len(worker.claim()) == 1
    worker.tick()
    waits = {one.id: http.get(f"/v1/batches/{one.id}").json()["ponder"]["waiting"] for one in (first, second)}
    assert waits[first.id] is None
    assert (waits[second.id]["reason"], waits[second.id]["is_exhausted"]) == ("budget", False)
    assert "0 of 30 tokens are spent, running jobs have the rest reserved" in waits[second.id]["message"]


def engine_sql(worker: Any, statement: str) -> None:
    with worker.engine.begin() as connection:
        connection.execute(text(statement))


def worker_settlement(job_id: int) -> Settlement:
    return Settlement(job_id, JobState.COMPLETED, Verdict.UNVERIFIED, tree={}, usage=Usage(completion_tokens=15))


def test_a_batch_shows_the_warnings_of_all_budgets_that_it_drew_on(
    http: httpx2.Client, own: dict[str, str], submitted: Submitted, line: Any, worker: Any
) -> None:
    earlier = submitted([line("a")], budget={"tokens": 20})
    worker.validate()
    http.post(f"/v1/batches/{earlier.id}/cancel").raise_for_status()
    worker.tick()
    http.patch(f"/v1/tenants/{own['tenant']}/budget", json={"tokens_per_month": 18}).raise_for_status()
    batch = submitted([line("a")], budget={"tokens": 18}, batch_budget={"tokens": 15 * 100})
    worker.validate()
    (number,) = worker.claim()
    worker.tick([worker_settlement(number)], [number])
    document = http.get(f"/v1/batches/{batch.id}").json()
    (warning,) = map(dict, document["ponder"]["warnings"])
    assert abs(warning.pop("at") - time.time()) < 60
    assert warning == {
        "budget": "tenant_month",
        "limit": "tokens",
        "percent": 80,
        "share": 15 / 18,
        "message": "80 % of the tokens of the tenant's budget of the month are spent",
    }
    engine_sql(worker, "UPDATE batches SET cancelled_at = cancelled_at - interval '1 minute'")
    listed = {one["id"]: one["ponder"]["warnings"] for one in http.get("/v1/batches").json()["data"]}
    assert listed == {batch.id: document["ponder"]["warnings"], earlier.id: []}
