from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest

REPORTS = ("cost", "waste", "latency", "quality", "what-if?market=on_demand")


@pytest.fixture
def batch(worker: Any, submitted: Any, line: Any, passed: Any) -> str:
    """A settled batch of two strategies."""
    made = submitted([line("a", ponder={"strategy": "direct"}), line("b", ponder={"strategy": "self_consistency"})])
    worker.validate()
    worker.work(passed)
    return str(made.id)


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_grouped_by_any_dimensions(http: httpx2.Client, batch: str, name: str) -> None:
    params = {"by": "strategy,level,model,batch,tenant,key,market,machine,day,hour", "batch_id": batch}
    answer = http.get(f"/v1/reports/{name}", params={**dict(httpx2.QueryParams(name.partition("?")[2])), **params})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert {row["strategy"] for row in rows} == {"direct", "self_consistency"}
    assert all(row["batch"] == batch and row["key"].startswith("key_") for row in rows)


@pytest.mark.parametrize("name", REPORTS)
def test_a_tenant_sees_only_its_own(http: httpx2.Client, stranger: httpx2.Client, batch: str, name: str) -> None:
    answer = stranger.get(f"/v1/reports/{name}")
    assert answer.status_code == 200
    assert batch not in answer.text
    assert not any(row.get("jobs") or row.get("settled") or row.get("nanodollars") for row in answer.json()["data"])
    assert stranger.get(f"/v1/reports/{name}", params={"tenant": "all"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("latency?by=colour", "by"),
        ("quality?by=metadata.nobody", "by"),
        ("waste?since=yesterday", "since"),
        ("cost?until=2026-02-30", "until"),
        ("cost?since=2026-02-02&until=2026-02-01", "since"),
        ("cost/comparison?a=colour%3Dred&b=batch_1", "a"),
        ("cost/comparison?a=strategy%3Ddirect&b=strategy%3Dmcts", "b"),
        ("what-if", "machine"),
        ("what-if?speed=0", "speed"),
        ("what-if?machine=abacus", "machine"),
        ("what-if?billed_by=day", "billed_by"),
        ("what-if?dollars_per_hour=-1", "dollars_per_hour"),
        ("what-if?input_dollars=1", "output_dollars"),
        ("what-if?input_dollars=1&output_dollars=2&market=spot", "output_dollars"),
    ],
)
def test_a_bad_question_is_answered_with_the_name_of_the_field(
    http: httpx2.Client, batch: str, path: str, param: str
) -> None:
    answer = http.get(f"/v1/reports/{path}")
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


def test_two_sets_of_jobs_are_compared(http: httpx2.Client, batch: str) -> None:
    sides = {"a": f"strategy=direct,batch={batch}", "b": "strategy=self_consistency"}
    answer = http.get("/v1/reports/cost/comparison", params=sides).json()
    assert (answer["a"]["jobs"], answer["b"]["jobs"], answer["confidence"]) == (1, 1, 0.95)
    assert (answer["ratio"], answer["may_be_chance"]) == (None, None)  # one job each tells nothing
    assert (answer["paired_by"], answer["paired_problems"]) == (None, 0)


def test_batches_of_the_same_problems_are_compared_in_pairs(
    http: httpx2.Client, worker: Any, submitted: Any, line: Any, passed: Any
) -> None:
    prompts = [{"messages": [{"role": "user", "content": f"Compute {number} + 1."}]} for number in range(3)]
    batches = []
    for strategy in ("direct", "self_consistency"):
        lines = [line(f"{strategy}-{number}", **prompt) for number, prompt in enumerate(prompts)]
        batches.append(submitted(lines, strategy={"name": strategy}).id)
        worker.validate()
        worker.work(passed)
    answer = http.get("/v1/reports/cost/comparison", params={"a": batches[0], "b": batches[1]}).json()
    assert (answer["paired_by"], answer["paired_problems"]) == ("prompt", 3)
    assert answer["ratio_low"] <= answer["ratio"] <= answer["ratio_high"]


def test_a_price_says_how_it_is_billed_and_does_not_begin_in_the_past(http: httpx2.Client) -> None:
    price = {"machine": "b200", "market": "spot", "dollars_per_hour": "3", "source": "test"}
    terms = {"billed_by": "hour", "minimum_s": 600, "region": "eu-1", "currency": "EUR"}
    made = http.put("/v1/prices", json=price | terms).json()
    assert {name: made[name] for name in terms} == terms
    for name, value in {"valid_from": int(time.time()) - 3600, "billed_by": "day", "minimum_s": -1}.items():
        refused = http.put("/v1/prices", json=price | {name: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


def test_spending_is_told_by_day_tenant_and_key_before_and_after_it_is_added_up(
    http: httpx2.Client, stranger: httpx2.Client, batch: str, world: Any
) -> None:
    before = http.get("/v1/reports/spending", params={"by": "day,tenant,key"}).json()["data"]
    world.tally()
    after = http.get("/v1/reports/spending", params={"by": "day,tenant,key"}).json()["data"]
    assert before == after
    [row] = after
    [booked] = world.sql("SELECT sum(nanodollars) AS sum FROM ledger_entries WHERE job_id IS NOT NULL")
    assert (row["direct_nanodollars"], row["completed"], row["failed"]) == (int(booked.sum), 2, 0)
    assert row["key"].startswith("key_")
    assert http.get("/v1/reports/spending").json()["by"] == ["day"]
    assert stranger.get("/v1/reports/spending").json()["data"] == []
    assert stranger.get("/v1/reports/spending", params={"tenant": row["tenant"]}).status_code == 403


def test_spending_counts_whole_days(http: httpx2.Client, batch: str) -> None:
    [row] = http.get("/v1/reports/spending").json()["data"]
    for since, until, num in (("T00:00", "T00:01", 1), ("T23:59", None, 1), (None, "T00:00", 0)):
        params = {"since": since and row["day"] + since, "until": until and row["day"] + until}
        found = http.get("/v1/reports/spending", params={name: at for name, at in params.items() if at})
        assert len(found.json()["data"]) == num
    for name, value in (("by", "model"), ("by", ""), ("since", "yesterday")):
        refused = http.get("/v1/reports/spending", params={name: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


def test_an_accuracy_has_an_interval(http: httpx2.Client, batch: str) -> None:
    [row] = http.get("/v1/reports/cost").json()["data"]
    assert row["accuracy"] == 1.0
    assert 0.3 < row["accuracy_low"] < 0.4
    assert row["accuracy_high"] == 1.0
