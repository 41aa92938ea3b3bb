"""The counters of /metrics are right, and no scrape reads the past."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from prometheus_client import generate_latest
from rows_read import rows_read
from sqlalchemy import Engine

from ponder.api.routes.metrics import Meter
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


@pytest.fixture
def meter(engine: Engine, redis_server: EmbeddedRedis) -> Meter:
    return Meter(engine, redis_server.url)


def _counter(meter: Meter, name: str, label: str) -> dict[str, int]:
    lines = (line.rsplit(" ", 1) for line in generate_latest(meter.registry).decode().splitlines())
    begin = f'{name}{{{label}="'
    return {key[len(begin) : -2]: int(float(value)) for key, value in lines if key.startswith(begin)}


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


def test_the_cost_of_a_scrape_does_not_grow_with_the_history(world: Any, meter: Meter) -> None:
    world.batch(10)
    worker = world.worker()

    def cost_with_more(num: int, first: int) -> float:
        world.sql(_OLD, id=worker, first=first, last=first + num - 1)
        world.sql(_ENTRIES, id=worker, num=num)
        world.sql(_DECISIONS, num=num)
        return rows_read(world.engine, lambda: generate_latest(meter.registry))

    few = cost_with_more(1_000, 0)
    assert cost_with_more(10_000, 1_000) - few <= 20
