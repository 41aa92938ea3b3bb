"""What is written into the outbox, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from ponder.jobs.dispatching.finish import finish
from ponder.jobs.tick import Settlement, Usage
from ponder.jobs.webhooks.subscription import set_url
from ponder.settings import Settings

SETTINGS = Settings(webhook_key=SecretStr("a key of the operator"))
URL = "https://example.com/hook"


@pytest.fixture
def tenant(world: Any) -> str:
    tenant = world.tenant()
    with world.engine.begin() as connection:
        set_url(connection, SETTINGS, tenant, URL, b"salt")
    return str(tenant)


def said(world: Any) -> list[tuple[str | None, dict[str, Any]]]:
    rows = world.sql("SELECT url, body FROM webhook_messages ORDER BY id")
    return [(row.url, json.loads(row.body)) for row in rows]


def settle(world: Any, worker: str, tokens: int) -> None:
    done = [
        Settlement(job, one.state, one.verdict, tree={"nodes": []}, usage=Usage(completion_tokens=tokens))
        for job in world.claim_all(worker)
        for one in [world.passed(job)]
    ]
    world.tick(worker, settled=done, work=world.work(*(one.job_id for one in done)))
    world.finish()


def test_every_end_of_a_batch_is_announced_once(world: Any, tenant: str) -> None:
    completed, expired, cancelled = (world.batch(1, tenant=tenant) for _ in range(3))
    world.sql('UPDATE batches SET metadata = \'{"name": "Übung"}\' WHERE id = :id', id=completed)
    world.sql("UPDATE jobs SET state = 'completed' WHERE batch_id = :id", id=completed)
    world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=expired)
    world.cancel(cancelled)
    for _ in range(3):
        world.finish()
    events = {event["data"]["id"]: event for _, event in said(world)}
    assert len(said(world)) == 3
    assert {batch: event["type"] for batch, event in events.items()} == {
        completed: "batch.completed",
        expired: "batch.expired",
        cancelled: "batch.cancelled",
    }
    assert {batch: event["data"]["status"] for batch, event in events.items()} == {
        completed: "completed",
        expired: "expired",
        cancelled: "cancelled",
    }
    assert events[completed]["data"]["metadata"] == {"name": "Übung"}
    assert events[expired]["data"]["error_file_id"] is not None
    assert events[completed]["timestamp"].endswith("Z")


def test_an_exhausted_budget_is_announced_with_its_name_and_when_it_renews(world: Any, tenant: str) -> None:
    worker, batch = world.worker(), world.batch(2, tenant=tenant, budget={"tokens": 10})
    world.limit(tenant, None, "day", tokens=15, nanodollars=None)
    settle(world, worker, 10)
    assert world.claim_all(worker) == []
    for _ in range(2):
        world.finish()
    ((_, event),) = said(world)
    assert event["type"] == "batch.budget_exhausted"
    data = event["data"]
    assert (data["id"], data["status"], data["budget"]) == (batch, "in_progress", "tenant_day")
    assert data["renews_at"] % 86_400 == 0
    assert data["output_file_id"] is not None


def test_an_exhausted_budget_is_announced_again_only_for_another_limit_or_period(world: Any, tenant: str) -> None:
    worker = world.worker()
    first, second = (world.batch(3, tenant=tenant, budget={"tokens": 10}) for _ in range(2))
    world.limit(tenant, None, "day", tokens=15, nanodollars=None)
    settle(world, worker, 10)

    def announced() -> list[str]:
        return [event["data"]["id"] for _, event in said(world) if event["type"] == "batch.budget_exhausted"]

    assert announced() == [first, second]
    world.sql("UPDATE batches SET exhausted_at = NULL")
    world.finish()
    assert announced() == [first, second]
    world.limit(tenant, None, "day", tokens=16, nanodollars=None)
    world.finish()
    assert announced() == [first, second] * 2
    world.pass_days(1)
    world.sql("UPDATE exhaustions SET renews_at = renews_at - interval '1 day'")
    settle(world, worker, 10)
    assert announced() == [first, second] * 3


def test_a_warning_of_a_batch_goes_where_its_events_go(world: Any, tenant: str) -> None:
    worker = world.worker()
    batches = [world.batch(1, tenant=tenant, budget={"tokens": 10}) for _ in range(2)]
    world.sql("UPDATE batches SET limit_tokens = 10")
    own = json.dumps({"webhook": "https://example.com/own"})
    world.sql("UPDATE batches SET options = CAST(:own AS jsonb) WHERE id = :id", own=own, id=batches[1])
    settle(world, worker, 8)
    warnings = [(url, event) for url, event in said(world) if event["type"] == "batch.budget_warning"]
    assert {event["data"]["batch"]: url for url, event in warnings} == {
        batches[0]: None,
        batches[1]: "https://example.com/own",
    }
    data = warnings[0][1]["data"]
    assert (data["budget"], data["limit"], data["percent"], data["share"]) == ("batch", "tokens", 80, 0.8)
    assert data["renews_at"] is None


def test_a_warning_of_a_tenant_goes_once_to_it_and_to_each_url_of_an_open_batch(world: Any, tenant: str) -> None:
    worker = world.worker()
    batches = [world.batch(2, tenant=tenant, budget={"tokens": 10}) for _ in range(4)]
    stranger = world.batch(1)
    urls = ["https://example.com/a", "https://example.com/a", "https://example.com/b"]
    for batch, url in zip([*batches[1:], stranger], [*urls, "https://example.com/c"], strict=True):
        own = json.dumps({"webhook": url})
        world.sql("UPDATE batches SET options = CAST(:own AS jsonb) WHERE id = :id", own=own, id=batch)
    world.limit(tenant, None, "month", tokens=25, nanodollars=None)
    settle(world, worker, 10)
    warnings = [(url, event["data"]) for url, event in said(world) if event["type"] == "batch.budget_warning"]
    assert sorted(url or "" for url, _ in warnings) == ["", "https://example.com/a", "https://example.com/b"]
    assert {data["tenant"] for _, data in warnings} == {tenant}
    assert {data["batch"] for _, data in warnings} == {None}


def test_a_tenant_without_a_webhook_fills_no_outbox(world: Any) -> None:
    world.batch(1)
    world.sql("UPDATE jobs SET state = 'completed'")
    world.finish()
    assert said(world) == []


def test_an_event_stands_and_falls_with_what_it_announces(world: Any, tenant: str) -> None:
    batch = world.batch(1, tenant=tenant)
    world.sql("UPDATE jobs SET state = 'completed'")
    with world.engine.connect() as connection:
        finish(connection)
        connection.rollback()
    assert (world.state(batch), said(world)) == ("in_progress", [])
