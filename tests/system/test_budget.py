"""A dollar cap over two workers, one of which is killed, and the batches that go on once it is raised."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from fleet import LEASE_S, Fleet, until

from ponder.domain.batch.submission import Change
from ponder.domain.budget import RenewingBudget
from ponder.jobs.batch.change import change
from ponder.jobs.budgets.change_budget import change_budget

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

NUM_JOBS = 12

# The most that one tick of each worker booked on jobs.
_ONE_TICK_EACH = """
    SELECT CAST(sum(most) AS bigint) FROM (
        SELECT max(booked) AS most FROM (
            SELECT incarnation_id, sum(nanodollars) AS booked FROM ledger_entries
            WHERE batch_id IS NOT NULL GROUP BY incarnation_id, until_at
        ) AS ticks GROUP BY incarnation_id
    ) AS workers
"""


def test_a_batch_stops_at_its_dollars_under_kill_9_and_goes_on_when_they_are_raised(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(2, "--max-sequences", "4")
    batch = fleet.submit(NUM_JOBS, max_tokens=800, strategy={"name": "direct"})
    until(lambda: fleet.scalar("SELECT count(DISTINCT holder) FROM shards WHERE state = 'held'") == 2, 60)
    until(lambda: fleet.num_saved_tokens() > 50, 60)
    limit = _spent(fleet, batch) + _a_second(fleet)
    _change(fleet, batch, dollars=limit / 1e9)
    pid = fleet.scalar("SELECT min(pid) FROM incarnations WHERE state = 'ready'")
    os.kill(pid, signal.SIGKILL)
    until(lambda: fleet.scalar("SELECT exhausted_at FROM batches WHERE id = :id", id=batch), LEASE_S + 60)

    overshoot, one_tick_each = _spent(fleet, batch) - limit, fleet.scalar(_ONE_TICK_EACH)
    print(f"limit {limit:,}, overshoot {overshoot:,}, one tick of each worker {one_tick_each:,} nano-dollars")
    assert -limit / 2 < overshoot <= one_tick_each  # below the limit if what is left of it is too little for a job
    assert fleet.scalar("SELECT state FROM batches WHERE id = :id", id=batch) == "in_progress"
    assert fleet.scalar("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert {"preempted", "lost"} <= set(fleet.outcomes())
    saved, num_left = fleet.saved_ids(), fleet.num_pending()
    assert num_left > 0
    assert saved, "jobs were handed back with their trees"

    _change(fleet, batch, dollars=1e6)
    until(lambda: fleet.num_pending() == 0, 120)
    settled = fleet.settled_ids()
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved
    fleet.check_settled_once(NUM_JOBS)
    assert fleet.scalar("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    used = fleet.scalar("SELECT sum(completion_tokens) FROM usage")
    rows = "SELECT generated_tokens FROM tallies UNION ALL SELECT generated_tokens FROM batch_totals"
    spent = f"SELECT sum(generated_tokens) FROM ({rows}) AS each"
    assert fleet.scalar(spent) == used
    fleet.check_ledgers()


def test_all_batches_of_a_tenant_stop_at_its_dollars_under_kill_9_and_go_on_once_they_are_raised(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(2, "--max-sequences", "4")
    batches = [fleet.submit(NUM_JOBS // 2, max_tokens=300, strategy={"name": "direct"}) for _ in range(2)]
    held = "SELECT count(DISTINCT holder) FROM shards WHERE state = 'held'"
    until(lambda: fleet.scalar(held) == 2 and fleet.num_saved_tokens() > 50, 120)
    limit = sum(_spent(fleet, batch) for batch in batches) + _a_second(fleet)
    with fleet.engine.begin() as connection:
        change_budget(connection, "t", None, RenewingBudget(dollars_per_day=limit / 1e9))
    already_over = max(0, sum(_spent(fleet, batch) for batch in batches) - limit)  # spent while the limit was being set
    os.kill(fleet.scalar("SELECT min(pid) FROM incarnations WHERE state = 'ready'"), signal.SIGKILL)
    exhausted = "SELECT count(*) FROM batches WHERE exhausted_at IS NOT NULL AND state = 'in_progress'"
    until(lambda: fleet.scalar(exhausted) == 2, LEASE_S + 60)

    overshoot = sum(_spent(fleet, batch) for batch in batches) - limit
    one_tick_each = fleet.scalar(_ONE_TICK_EACH)
    print(f"limit {limit:,}, overshoot {overshoot:,}, one tick of each worker {one_tick_each:,} nano-dollars")
    assert (
        -limit / 2 < overshoot <= already_over + one_tick_each
    )  # below the limit if what is left of it is too little for a job
    assert fleet.scalar("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert fleet.num_pending() > 0
    warnings = fleet.scalar("SELECT count(*) FROM budget_warnings WHERE budget = 'tenant_day' AND percent = 100")
    assert warnings == (1 if overshoot >= 0 else 0)

    with fleet.engine.begin() as connection:
        change_budget(connection, "t", None, RenewingBudget(dollars_per_day=1e6))
    until(lambda: fleet.num_pending() == 0, 120)
    fleet.check_settled_once(NUM_JOBS)
    until(lambda: fleet.scalar("SELECT count(*) FROM tallies") == 0, 20)
    counted = fleet.scalar("SELECT sum(direct_nanodollars) FROM day_totals")
    assert counted == sum(_spent(fleet, batch) for batch in batches)
    fleet.check_ledgers()


def _spent(fleet: Fleet, batch: str) -> int:
    return int(fleet.scalar("SELECT sum(nanodollars) FROM ledger_entries WHERE batch_id = :id", id=batch) or 0)


def _a_second(fleet: Fleet) -> int:
    """The price of a second of all workers."""
    return int(fleet.scalar("SELECT sum(nanodollars_per_hour) / 3600 FROM incarnations WHERE state = 'ready'"))


def _change(fleet: Fleet, batch: str, **limits: Any) -> None:
    with fleet.engine.begin() as connection:
        change(connection, "t", batch, Change.model_validate({"ponder": {"batch_budget": limits}}))
