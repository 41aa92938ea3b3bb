"""The jobs of a batch, sorted and filtered, and its history, as clients see them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from world import World

from ponder.api import job_list as module
from ponder.domain.state import Verdict
from ponder.jobs.tick import Usage, Work


@pytest.fixture
def home(world: World, base_url: str) -> str:
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


@pytest.fixture
def batch(world: World, home: str) -> str:
    """Nine jobs, of which eight have settled: job n has n * 10 tokens, costs n shares, and passed if n is odd."""
    batch_id = world.batch(9, tenant=home, level="easy")
    world.sql("UPDATE jobs SET level = 'hard' WHERE line IN (2, 3, 8)")
    worker = world.worker()
    jobs = sorted(world.claim_all(worker))[:8]
    settled = [
        replace(
            world.passed(job),
            verdict=Verdict.PASSED if line % 2 else Verdict.FAILED,
            usage=Usage(prompt_tokens=5, completion_tokens=10 * line),
        )
        for line, job in enumerate(jobs, 1)
    ]
    world.tick(worker, settled=settled, work=[Work(job, float(line)) for line, job in enumerate(jobs, 1)])
    world.tick(worker)
    world.tally()
    world.fold_costs()
    return batch_id


def _lines(http: httpx2.Client, batch: str, **query: Any) -> list[int]:
    """Returns the lines of all pages of two jobs each."""
    lines: list[int] = []
    after: dict[str, str] = {}
    while True:
        page = http.get(f"/v1/batches/{batch}/jobs", params={"limit": 2, **query, **after}).raise_for_status().json()
        lines += [job["line"] for job in page["data"]]
        if not page["has_more"]:
            return lines
        after = {"after": page["last_id"]}


def test_jobs_are_sorted_by_any_key_in_both_directions_page_by_page(http: httpx2.Client, batch: str) -> None:
    assert _lines(http, batch) == list(range(1, 10))
    assert _lines(http, batch, order="desc") == list(range(9, 0, -1))
    assert _lines(http, batch, sort="custom_id", order="desc") == list(range(9, 0, -1))
    for key in ("tokens", "cost"):
        assert _lines(http, batch, sort=key) == list(range(1, 9)), "a pending job has no cost yet"
        assert _lines(http, batch, sort=key, order="desc") == list(range(8, 0, -1))


def test_jobs_of_the_same_cost_come_by_line_and_none_twice(http: httpx2.Client, batch: str, world: World) -> None:
    world.sql(
        "UPDATE settled_jobs SET nanodollars = (SELECT nanodollars FROM settled_jobs WHERE line = 4)"
        " WHERE line BETWEEN 2 AND 7"
    )
    assert _lines(http, batch, sort="cost", order="desc")[1:7] == [7, 6, 5, 4, 3, 2]


def test_filters_can_be_combined(http: httpx2.Client, batch: str) -> None:
    assert _lines(http, batch, verdict="passed") == [1, 3, 5, 7]
    assert _lines(http, batch, level="hard") == [2, 3, 8]
    assert _lines(http, batch, level="hard", verdict="failed") == [2, 8]
    assert _lines(http, batch, state="pending") == [9]
    assert _lines(http, batch, min_tokens=30, max_tokens=50) == [3, 4, 5]
    assert _lines(http, batch, min_tokens=30, verdict="failed", level="hard", sort="tokens", order="desc") == [8]
    assert _lines(http, batch, custom_id="line-4") == [4]
    assert _lines(http, batch, custom_id_prefix="line-", min_tokens=70) == [7, 8]
    costs = [job["direct_nanodollars"] for job in http.get(f"/v1/batches/{batch}/jobs").json()["data"]]
    assert costs[8] == 0
    assert costs[:8] == sorted(costs[:8])
    assert _lines(http, batch, min_nanodollars=costs[4], max_nanodollars=costs[6]) == [5, 6, 7]


def test_a_prefix_is_taken_as_it_is(http: httpx2.Client, batch: str, world: World) -> None:
    for line, name in enumerate(("a%b", "a_b", "aXb", "A%b", "é-1", "e-1"), 1):
        world.sql("UPDATE jobs SET custom_id = :name WHERE line = :line", name=name, line=line)
    assert _lines(http, batch, custom_id_prefix="a%") == [1]
    assert _lines(http, batch, custom_id_prefix="a_") == [2]
    assert _lines(http, batch, custom_id_prefix="é") == [5]
    assert _lines(http, batch, custom_id_prefix="line-\\") == []


def test_the_jobs_of_a_stopped_batch_are_filtered_by_the_state_that_counts(
    http: httpx2.Client, batch: str, world: World
) -> None:
    http.post(f"/v1/batches/{batch}/cancel").raise_for_status()
    assert _lines(http, batch, state="cancelled") == [9]
    assert _lines(http, batch, state="pending") == []
    world.finish()
    assert _lines(http, batch, state="cancelled") == [9]


def test_a_cursor_without_a_place_in_the_order_is_refused(http: httpx2.Client, batch: str, world: World) -> None:
    pending = world.jobs(batch)[-1]
    refused = http.get(f"/v1/batches/{batch}/jobs", params={"sort": "cost", "after": f"job_{pending}"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "after")


def test_what_a_worker_books_too_late_counts_in_the_order(http: httpx2.Client, batch: str, world: World) -> None:
    first, last = world.jobs(batch)[0], world.jobs(batch)[7]
    straggler = world.worker()
    world.tick(straggler, work=[Work(first, 1.0)])
    world.sql("UPDATE incarnations SET billed_until = billed_until - interval '1 hour' WHERE id = :id", id=straggler)
    world.tick(straggler, work=[Work(first, 1.0)])
    world.fold_costs()
    stored = {row.job_id: row.nanodollars for row in world.sql("SELECT job_id, nanodollars FROM settled_jobs")}
    for job in (first, last):
        [entry] = world.sql("SELECT sum(nanodollars) AS sum FROM ledger_entries WHERE job_id = :id", id=job)
        assert stored[job] == entry.sum
    assert _lines(http, batch, sort="cost", order="desc")[0] == 1


def test_filters_that_take_too_long_are_refused(
    http: httpx2.Client, batch: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", text("SET LOCAL statement_timeout = '100ms'"))
    with world.engine.begin() as busy:
        busy.execute(text("LOCK TABLE settled_jobs IN ACCESS EXCLUSIVE MODE"))
        refused = http.get(f"/v1/batches/{batch}/jobs", params={"sort": "cost"})
        assert http.get(f"/v1/batches/{batch}/jobs").status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "list_too_slow")


def test_a_stranger_finds_neither_jobs_nor_history(http: httpx2.Client, stranger: httpx2.Client, batch: str) -> None:
    for path in ("jobs?sort=cost", "jobs?sort=custom_id&custom_id_prefix=line", "history"):
        assert stranger.get(f"/v1/batches/{batch}/{path}").status_code == 404
    assert http.get(f"/v1/batches/{batch}/history").status_code == 200


def test_the_history_adds_up_to_the_batch_whether_folded_or_not(http: httpx2.Client, batch: str, world: World) -> None:
    worker = world.worker()
    world.tick(worker, work=[Work(world.jobs(batch)[8], 1.0)])
    whole = http.get(f"/v1/batches/{batch}").json()["ponder"]
    for _ in range(2):
        history = http.get(f"/v1/batches/{batch}/history").json()
        stretches = history["data"]
        assert sum(one["completed"] for one in stretches) == 8
        assert sum(one["verdicts"]["failed"] for one in stretches) == whole["verdicts"]["failed"] == 4
        assert sum(one["generated_tokens"] for one in stretches) == whole["tokens_generated"] == 360
        assert sum(one["direct_nanodollars"] for one in stretches) == whole["direct_nanodollars"] > 0
        assert history["seconds"] == 5
        assert all(one["at"] % 5 == 0 for one in stretches)
        world.tally()


def test_the_stretches_of_a_long_history_are_longer(http: httpx2.Client, batch: str, world: World) -> None:
    world.sql("UPDATE batches SET in_progress_at = in_progress_at - interval '3 days'")
    world.tick(worker := world.worker(), work=[Work(world.jobs(batch)[8], 1.0)])
    world.tick(worker)
    world.tally()
    history = http.get(f"/v1/batches/{batch}/history").json()
    assert history["seconds"] == 3_600
    [(least,)] = world.sql("SELECT count(*) FROM batch_history WHERE extract(epoch FROM begin_at) % 600 = 0")
    assert least >= 1


def test_batches_are_filtered_and_pages_keep_the_filter(http: httpx2.Client, home: str, world: World) -> None:
    demo = [world.batch(1, tenant=home) for _ in range(3)]
    large = world.batch(1, tenant=home, models=("large",))
    world.sql("""UPDATE batches SET metadata = '{"team": "Math"}' WHERE id = :id""", id=demo[0])
    world.sql("UPDATE batches SET created_at = '2026-01-31T23:00Z' WHERE id = :id", id=demo[1])

    def ids(**query: Any) -> list[str]:
        return [one["id"] for one in http.get("/v1/batches", params=query).raise_for_status().json()["data"]]

    assert ids(model="large") == [large]
    assert ids(model="demo", limit=1) == [demo[2]]
    assert ids(model="demo", after=demo[2]) == [demo[0], demo[1]]
    assert ids(search="TEAM=math") == [demo[0]]
    assert ids(search=demo[1][6:]) == [demo[1]]
    assert len(ids(search="in.jsonl")) == 4
    assert ids(search="100%") == []
    assert ids(since="2026-01-31", until="2026-02-01") == [demo[1]]
    assert ids(state="completed") == []
    assert http.get("/v1/batches", params={"since": "yesterday"}).json()["error"]["param"] == "since"
