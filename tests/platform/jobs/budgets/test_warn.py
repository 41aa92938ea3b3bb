"""Warnings at 80 and 100 percent of a budget, once each."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.budget import BudgetName
from ponder.jobs.tick import Settlement, Usage


def spend(world: Any, worker: str, *, tokens: int) -> None:
    """Claims one job, or as many as fit, and settles them with so many tokens each."""
    jobs = world.claim_all(worker)
    settled = [
        Settlement(job, done.state, done.verdict, tree={"nodes": []}, usage=Usage(completion_tokens=tokens))
        for job in jobs
        for done in [world.passed(job)]
    ]
    world.tick(worker, settled=settled, work=world.work(*jobs))
    world.finish()


def warnings(world: Any) -> list[tuple[str, str, int]]:
    rows = world.sql("SELECT budget, measure, percent FROM budget_warnings ORDER BY id")
    return [(row.budget, row.measure, row.percent) for row in rows]


@pytest.mark.parametrize("budget", list(BudgetName))
def test_each_budget_warns_once_at_80_and_once_at_100_percent(world: Any, budget: BudgetName) -> None:
    tenant, worker = world.tenant(), world.worker()
    key = world.key(tenant)
    world.batch(4, tenant=tenant, key=key, budget={"tokens": 10})
    owner, _, period = budget.partition("_")
    if budget is BudgetName.BATCH:
        world.sql("UPDATE batches SET limit_tokens = 20")
    else:
        world.limit(tenant, key if owner == "key" else None, period, tokens=20, nanodollars=None)
    spend(world, worker, tokens=7)
    assert warnings(world) == []
    expected = []
    for percent, more in ((80, 2), (100, 4)):
        world.sql(f"UPDATE tallies SET generated_tokens = generated_tokens + {more} WHERE num_completed > 0")
        expected.append((budget, "tokens", percent))
        for _ in range(2):
            world.finish()
            assert warnings(world) == expected


def test_a_batch_that_ends_above_a_threshold_is_warned_of(world: Any) -> None:
    worker, batch = world.worker(), world.batch(1, budget={"tokens": 10})
    world.sql("UPDATE batches SET limit_tokens = 10, limit_nanodollars = 1")
    spend(world, worker, tokens=10)
    assert world.state(batch) == "completed"
    expected = [("batch", measure, percent) for measure in ("tokens", "dollars") for percent in (80, 100)]
    assert warnings(world) == expected
    (row,) = world.sql("SELECT * FROM budget_warnings WHERE measure = 'tokens' AND percent = 80")
    assert (row.batch_id, row.key_id, row.amount, row.share, row.renews_at) == (batch, None, 10, 1.0, None)


def test_the_next_day_and_a_raised_limit_are_warned_of_again(world: Any) -> None:
    tenant, worker = world.tenant(), world.worker()
    world.batch(9, tenant=tenant, budget={"tokens": 10})
    eighty, hundred = (("tenant_day", "tokens", percent) for percent in (80, 100))
    world.limit(tenant, None, "day", tokens=10, nanodollars=None)
    spend(world, worker, tokens=10)
    assert warnings(world) == [eighty, hundred]
    world.limit(tenant, None, "day", tokens=20, nanodollars=None)
    world.tick(worker)
    spend(world, worker, tokens=8)
    assert warnings(world) == [eighty, hundred, eighty]
    world.pass_days(1)
    world.sql("UPDATE budget_warnings SET renews_at = renews_at - interval '1 day'")
    world.tick(worker)
    spend(world, worker, tokens=10)
    assert warnings(world) == [eighty, hundred, eighty, eighty, hundred]


def test_a_tenant_is_warned_once_for_all_its_batches(world: Any) -> None:
    tenant, worker = world.tenant(), world.worker()
    for _ in range(3):
        world.batch(1, tenant=tenant, budget={"tokens": 10})
    world.batch(1, budget={"tokens": 10})
    world.limit(tenant, None, "day", tokens=34, nanodollars=None)
    spend(world, worker, tokens=10)
    assert warnings(world) == [("tenant_day", "tokens", 80)]
    assert world.sql("SELECT tenant_id FROM budget_warnings")[0].tenant_id == tenant
