"""Whole batches through real processes: to their end, to a limit, and stopped on the way."""

from __future__ import annotations

import pytest
from fleet import Fleet, until

from ponder.jobs.batch.cancel import cancel

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

DIRECT = {"name": "direct"}


def _state(fleet: Fleet, batch_id: str) -> str:
    return str(fleet.scalar("SELECT state FROM batches WHERE id = :id", id=batch_id))


def test_a_batch_goes_through_and_what_is_urgent_overtakes_what_waits(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(1, "--max-sequences", "8")
    patient = fleet.submit(150, max_tokens=120, strategy=DIRECT)
    until(lambda: fleet.scalar("SELECT count(*) FROM results") > 0, 30)
    urgent = fleet.submit(2, max_tokens=20, strategy=DIRECT, priority="interactive")
    until(lambda: _state(fleet, urgent) == "completed", 30)
    until(lambda: _state(fleet, patient) == "completed", 90)
    last = "SELECT max(settled_at) FROM jobs WHERE batch_id = :id"
    assert fleet.scalar(last, id=urgent) < fleet.scalar(last, id=patient)
    fleet.check_settled_once(152)
    assert fleet.scalar("SELECT count(*) FROM jobs WHERE verdict IN ('passed', 'failed')") == 152
    assert fleet.scalar("SELECT min(completion_tokens) FROM usage") == 20
    fleet.check_ledgers()


def test_a_cancelled_batch_stops_at_once_and_a_deadline_settles_the_next_with_what_there_is(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(1)
    endless = fleet.submit(1, max_tokens=4000)
    until(lambda: fleet.num_saved_tokens() > 0, 30)
    with fleet.engine.begin() as connection:
        cancel(connection, "t", endless)
    until(lambda: _state(fleet, endless) == "cancelled", 20)
    assert fleet.outcomes() == ["cancelled"]
    assert fleet.num_saved_tokens() == 0
    following = fleet.submit(1, max_tokens=4000, budget={"deadline_s": 3})
    until(lambda: _state(fleet, following) == "completed", 30)
    assert fleet.scalar("SELECT finish_reason FROM results") == "deadline"
    assert 0 < fleet.scalar("SELECT completion_tokens FROM usage") < 8 * 4000
    fleet.check_settled_once(1)
    fleet.check_ledgers()


def test_a_limit_of_dollars_is_passed_by_one_tick_at_most(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(1)
    limit = 30_000
    fleet.submit(1, max_tokens=2000, budget={"dollars": limit / 1e9})
    until(lambda: fleet.scalar("SELECT count(*) FROM results"), 90)
    assert fleet.scalar("SELECT finish_reason FROM results") == "dollars"
    ticks = fleet.rows(
        "SELECT CAST(sum(nanodollars) AS bigint) AS cost FROM ledger_entries WHERE job_id IS NOT NULL"
        " GROUP BY until_at ORDER BY until_at"
    )
    costs = [tick.cost for tick in ticks]
    passed = next(number for number in range(len(costs)) if sum(costs[: number + 1]) >= limit)
    print(f"limit {limit}, spent {sum(costs)}, by tick {costs}")
    assert sum(costs) - limit <= 2 * max(costs), "the tick that passes it, and the time until the engine hears of it"
    assert len(costs) <= passed + 3
    fleet.check_ledgers()
