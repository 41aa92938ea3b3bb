"""The figures of /metrics are right, and no scrape reads the past."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from prometheus_client import generate_latest
from rows_read import rows_read
from sqlalchemy import Engine
from starlette.types import Message, Receive, Scope, Send

from ponder.api.routes.metrics import Meter, Observed
from ponder.embedded.redis import EmbeddedRedis
from ponder.store.counter import fold_counters

_OLD = """
    INSERT INTO incarnations SELECT (jsonb_populate_record(incarnations, jsonb_build_object(
        'id', 'old_' || n, 'state', 'ended', 'end_reason', 'SIGTERM', 'ended_at', clock_timestamp() - interval '1 day',
        'lease_until', clock_timestamp() - interval '1 day'
    ))).* FROM incarnations, generate_series(CAST(:first AS int), CAST(:last AS int)) AS n WHERE id = :id
"""
_ENTRIES = """
    INSERT INTO ledger_entries (incarnation_id, kind, nanodollars, from_at, until_at)
    SELECT :id, 'idle', 1, clock_timestamp(), clock_timestamp() FROM generate_series(1, CAST(:num AS int))
"""
_DECISIONS = """
    INSERT INTO fleet_decisions (action, model, machine, market, reason, at)
    SELECT 'start', '', '', '', '', clock_timestamp() - interval '1 day' FROM generate_series(1, CAST(:num AS int))
"""

_BATCHES = """
    WITH old AS (
        INSERT INTO batches SELECT (jsonb_populate_record(batches, jsonb_build_object(
            'id', 'old_' || n, 'state', 'completed', 'created_at', clock_timestamp() - interval '1 day'
        ))).* FROM batches, generate_series(CAST(:first AS int), CAST(:last AS int)) AS n WHERE id = :id RETURNING id
    )
    INSERT INTO batch_totals (batch_id, num_rejected) SELECT id, 1 FROM old
"""


@pytest.fixture
def meter(engine: Engine, redis_server: EmbeddedRedis) -> Meter:
    return Meter(engine, redis_server.url)


def _counter(meter: Meter, name: str, label: str) -> dict[str, int]:
    lines = (line.rsplit(" ", 1) for line in generate_latest(meter.registry).decode().splitlines())
    begin = f'{name}{{{label}="'
    return {key[len(begin) : -2]: int(float(value)) for key, value in lines if key.startswith(begin)}


@pytest.mark.parametrize(("content_type", "num_timed"), [("application/json", 1), ("text/event-stream", 0)])
def test_a_stream_that_stays_open_is_counted_and_not_timed(meter: Meter, content_type: str, num_timed: int) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", f"{content_type}; charset=utf-8".encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(_message: Message) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/events"}
    asyncio.run(Observed(app, meter)(scope, send, send))  # type: ignore[arg-type]
    labels = {"method": "GET", "route": "none"}
    assert meter.registry.get_sample_value("ponder_http_requests_total", labels | {"status": "200"}) == 1
    assert (meter.registry.get_sample_value("ponder_http_request_seconds_count", labels) or 0) == num_timed


def test_what_was_spent_is_the_ledger_by_kind_before_and_after_it_was_added_up(world: Any, meter: Meter) -> None:
    world.batch(3)
    worker = world.worker()
    for job in world.claim_all(worker):
        world.tick(worker, work=world.work(job), settled=[world.passed(job)])
    booked: Counter[str] = Counter()
    for row in world.sql("SELECT kind, nanodollars FROM ledger_entries"):
        booked[row.kind] += row.nanodollars
    assert {"loading", "work"} <= booked.keys()
    assert _counter(meter, "ponder_spent_nanodollars_total", "kind") == booked
    for _ in range(2):
        with world.engine.begin() as connection:
            fold_counters(connection)
        assert world.sql("SELECT 1 FROM counter_tallies") == []
        assert _counter(meter, "ponder_spent_nanodollars_total", "kind") == booked
    world.release(worker)
    assert sum(_counter(meter, "ponder_spent_nanodollars_total", "kind").values()) == world.billed(worker)


def test_why_workers_ended_is_counted_even_of_those_that_were_never_scraped(world: Any, meter: Meter) -> None:
    reasons = (
        "aws notice, 118 s before", "aws notice, 9 s before", "azure reboot notice, 60 s before", "SIGTERM",
        "RuntimeError: no such notice", "a request to drain",
    )  # fmt: skip
    for reason in reasons:
        world.release(world.worker(), reason=reason)
    counts = {"aws notice": 2, "azure reboot notice": 1, "SIGTERM": 1}
    assert _counter(meter, "ponder_preemptions_total", "reason") == counts
    with world.engine.begin() as connection:
        fold_counters(connection)
    world.release(world.worker(), reason="SIGTERM")
    assert _counter(meter, "ponder_preemptions_total", "reason") == counts | {"SIGTERM": 2}


def _submit(world: Any, num_jobs: int, num_rejected: int) -> str:
    batch: str = world.batch(num_jobs)
    world.sql("UPDATE batches SET num_lines = num_lines + :num WHERE id = :id", num=num_rejected, id=batch)
    world.sql("INSERT INTO tallies (batch_id, num_rejected) VALUES (:id, :num)", num=num_rejected, id=batch)
    return batch


def test_lines_of_the_last_hour_are_accepted_or_rejected_before_and_after_they_were_added_up(
    world: Any, meter: Meter
) -> None:
    def lines() -> dict[str, int]:
        return _counter(meter, "ponder_submitted_lines", "state")

    assert lines() == {"accepted": 0, "rejected": 0}
    _submit(world, 5, 1)
    _submit(world, 2, 2)
    assert lines() == {"accepted": 7, "rejected": 3}
    world.tally()
    old = _submit(world, 4, 0)
    assert lines() == {"accepted": 11, "rejected": 3}
    world.sql("UPDATE batches SET created_at = created_at - interval '61 minutes' WHERE id = :id", id=old)
    assert lines() == {"accepted": 7, "rejected": 3}


def test_the_cost_of_a_scrape_does_not_grow_with_the_history(world: Any, meter: Meter) -> None:
    batch = world.batch(10)
    worker = world.worker()

    def cost_with_more(num: int, first: int) -> float:
        world.sql(_OLD, id=worker, first=first, last=first + num - 1)
        world.sql(_ENTRIES, id=worker, num=num)
        world.sql(_DECISIONS, num=num)
        world.sql(_BATCHES, id=batch, first=first, last=first + num - 1)
        return rows_read(world.engine, lambda: generate_latest(meter.registry))

    few = cost_with_more(1_000, 0)
    assert cost_with_more(10_000, 1_000) - few <= 20
