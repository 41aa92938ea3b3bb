"""Folded costs. `test_fleet` compares them with jobs and entries in any order of events."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from ponder.jobs.tick import Work, tick
from ponder.ledger.cost_report import CostRow, cost_report
from ponder.ledger.cost_totals import fold_costs
from ponder.ledger.reporting import Selection

FOLDED = Selection(("strategy", "level"))
ROWS = Selection(("strategy", "level"), since=datetime(1970, 1, 1, tzinfo=UTC))
"""With a beginning, a report reads jobs and entries."""


def _reports(world: Any) -> tuple[list[CostRow], list[CostRow]]:
    with world.engine.begin() as connection:
        return cost_report(connection, FOLDED), cost_report(connection, ROWS)


def _assert_same(world: Any) -> None:
    folded, rows = _reports(world)
    assert len(folded) == len(rows) > 0
    for one, other in zip(folded, rows, strict=True):
        assert (one.group, one.num_jobs, one.num_settled) == (other.group, other.num_jobs, other.num_settled)
        assert one.loaded_nanodollars == other.loaded_nanodollars
        assert (one.sums.num, type(one.sums.num)) == (other.sums.num, int)
        assert (one.interval is None) == (other.interval is None)
        assert (one.sums.yy, one.sums.xy) == (pytest.approx(other.sums.yy), pytest.approx(other.sums.xy))


def _set_back(world: Any, where: str) -> None:
    """Moves entries that are not folded an hour back."""
    world.rewrite_ledger(f"UPDATE ledger_entries SET until_at = until_at - interval '1 hour' WHERE {where}")


def test_a_job_over_two_hours_and_two_workers_bears_the_overhead_of_each(world: Any) -> None:
    world.batch(3, level="1")
    first, second = world.worker(), world.worker(machine="cpu", market="on_demand")
    jobs = world.claim_all(first)
    world.tick(first, work=[Work(job, 1.0 + job) for job in jobs], idle_fraction=0.5)
    _set_back(world, "true")
    world.tick(first, work=[Work(job, 9.0 - job) for job in jobs], idle_fraction=0.1)
    world.release(first)
    world.claim_all(second)
    world.tick(second, work=world.work(*jobs), settled=[world.passed(job) for job in jobs[:2]], idle_fraction=0.9)
    _set_back(world, "id IN (SELECT max(id) FROM ledger_entries WHERE job_id IS NULL)")
    _assert_same(world)
    world.tally()
    world.fold_costs()
    assert len(world.sql("SELECT 1 FROM cost_hours")) == 3
    assert len(world.sql("SELECT 1 FROM cost_products")) == 6
    _assert_same(world)
    world.tick(second, idle_fraction=1.0)
    _assert_same(world)


def test_what_is_booked_after_the_folding_is_added(world: Any) -> None:
    world.batch(2)
    worker, late = world.worker(), world.worker()
    first, second = world.claim_all(worker)
    world.tick(worker, work=world.work(first, second), settled=[world.passed(first)])
    world.tally()
    world.fold_costs()
    world.tick(late, work=world.work(first, second))
    assert len(world.sql("SELECT 1 FROM late_costs")) == 2
    _assert_same(world)
    world.fold_costs()
    assert len(world.sql("SELECT 1 FROM late_costs")) == 1, "the other job is pending"
    _assert_same(world)
    world.tick(worker, work=world.work(second), settled=[world.passed(second)])
    world.tally()
    world.fold_costs()
    assert world.sql("SELECT 1 FROM late_costs") == []
    _assert_same(world)


def test_a_job_that_a_worker_still_holds_is_folded_when_it_has_let_go(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.cancel(batch)
    world.sql("UPDATE batches SET state = 'cancelled', cancelled_at = now()")
    world.finish()
    world.tally()
    world.fold_costs()
    assert world.states(batch) == ["cancelled", "cancelled"]
    assert [row.num_costed for row in world.sql("SELECT num_costed FROM batch_totals")] == [0]
    _assert_same(world)
    world.tick(worker, work=world.work(*jobs))
    world.fold_costs()
    assert [row.num_costed for row in world.sql("SELECT num_costed FROM batch_totals")] == [2]
    _assert_same(world)


def test_folding_and_ticks_do_not_wait_for_each_other(world: Any) -> None:
    world.batch(3)
    worker = world.worker()
    first, second, third = world.claim_all(worker)
    world.tick(worker, work=world.work(first), settled=[world.passed(first)])
    world.tally()
    with world.engine.begin() as frozen:
        fold_costs(frozen)
        frozen.execute(text("SELECT 1 FROM cost_totals FOR UPDATE"))
        started_at = time.monotonic()
        world.tick(worker, settled=[world.passed(second)], work=world.work(second))
        assert time.monotonic() - started_at < 5
    with world.engine.begin() as frozen:
        tick(frozen, world.report(worker, settled=[world.passed(third)], work=world.work(third)))
        started_at = time.monotonic()
        world.tally()
        world.fold_costs()
        assert time.monotonic() - started_at < 0.9, "it would give up on a lock after a second"


def _read_by_report(world: Any, table: str, **chosen: Any) -> int:
    """Returns how many rows of a table a report reads."""
    with world.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # a small table would be read whole
        read = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = :table"
        before = int(connection.execute(text(read), {"table": table}).scalar_one())
        cost_report(connection, Selection(**chosen))
        return int(connection.execute(text(read), {"table": table}).scalar_one()) - before


def test_a_report_reads_only_the_hours_in_which_its_jobs_were_computed(world: Any) -> None:
    world.batch(2)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[world.passed(job) for job in jobs])
    world.tally()
    world.fold_costs()
    world.sql(
        """
        INSERT INTO hour_totals (worker, hour, direct_nanodollars, overhead_nanodollars)
        SELECT 'old-' || number % 10, '2025-01-01Z'::timestamptz + number / 10 * interval '1 hour', 5, 5
        FROM generate_series(1, 50000) AS number
        """
    )
    world.sql("ANALYZE hour_totals")
    assert _read_by_report(world, "hour_totals") < 100
    _assert_same(world)


def test_what_waits_to_be_folded_of_others_does_not_slow_a_report(world: Any) -> None:
    tenant, other = world.tenant(), world.tenant()
    own, foreign = world.batch(2, tenant=tenant), world.batch(30, tenant=other)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[world.passed(job) for job in jobs])
    world.tick(world.worker(), work=world.work(*jobs))
    world.tally()
    whole = _read_by_report(world, "ledger_entries")
    assert whole >= 64
    assert _read_by_report(world, "ledger_entries", tenant_id=tenant) <= 4
    assert _read_by_report(world, "ledger_entries", batch_ids=(own,)) <= 4
    assert _read_by_report(world, "ledger_entries", tenant_id=other, batch_ids=(foreign,)) >= 60
