"""The budgets of tenants and keys, over all their batches, and the day on which they renew."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.budget import BudgetName, Limit
from ponder.jobs.tick import Settlement, Usage
from ponder.ledger.spending import allowances, renewing


class House:
    """A tenant with batches of jobs that may generate ten tokens each, and one worker."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.tenant = world.tenant()
        self.key = world.key(self.tenant)
        self.worker = world.worker()

    def batch(self, num_jobs: int, *, key: str | None = None, cap: int | None = 10) -> str:
        return str(self.world.batch(num_jobs, tenant=self.tenant, key=key, budget={"tokens": cap}))

    def limit(
        self, period: str = "day", *, key: str | None = None, tokens: int | None = None, nanodollars: int | None = None
    ) -> None:
        self.world.limit(self.tenant, key, period, tokens=tokens, nanodollars=nanodollars)

    def left(self, name: BudgetName = BudgetName.TENANT_DAY) -> Limit:
        with self.world.engine.connect() as connection:
            (found,) = (one.limit for one in renewing(connection, [self.tenant]) if one.limit.budget is name)
        return found

    def settle(self, *job_ids: int, tokens: int) -> None:
        settled = [
            Settlement(
                job_id,
                self.world.passed(job_id).state,
                self.world.passed(job_id).verdict,
                tree={"nodes": []},
                usage=Usage(completion_tokens=tokens),
            )
            for job_id in job_ids
        ]
        self.world.tick(self.worker, settled=settled, work=self.world.work(*job_ids))

    def is_exhausted(self, batch: str) -> bool:
        self.world.finish()
        rows = self.world.sql("SELECT exhausted_at FROM batches WHERE id = :id", id=batch)
        return rows[0].exhausted_at is not None


@pytest.fixture
def house(world: Any) -> House:
    return House(world)


def test_all_batches_of_a_tenant_share_its_budget(world: Any, house: House) -> None:
    first, second = house.batch(2), house.batch(2)
    house.limit(tokens=25)
    jobs = world.claim_all(house.worker)
    assert jobs == world.jobs(first), "20 of the 25 tokens are reserved"
    assert (house.left().reserved_tokens, house.left().room_tokens) == (20, 5)
    assert not house.is_exhausted(second), "running jobs may return what they reserved"
    house.settle(*jobs, tokens=6)
    assert (house.left().spent.tokens, house.left().reserved_tokens) == (12, 0)
    (third,) = world.claim_all(house.worker)
    house.settle(third, tokens=10)
    assert world.claim_all(house.worker) == []
    assert house.is_exhausted(second)
    assert world.sql("SELECT output_file_id FROM batches WHERE id = :id", id=second)[0].output_file_id is not None


@pytest.mark.parametrize("folded", [False, True])
def test_a_batch_goes_on_by_itself_when_the_day_ends(world: Any, house: House, folded: bool) -> None:
    batch = house.batch(3)
    house.limit(tokens=12)
    house.settle(*world.claim_all(house.worker), tokens=10)
    if folded:
        world.tally()
    assert house.is_exhausted(batch)
    assert world.dispatch() == []
    world.pass_days(1)
    assert house.left().spent.tokens == 0
    assert not house.is_exhausted(batch)
    assert world.claim_all(house.worker) == world.jobs(batch)[1:2]


def test_a_month_adds_its_days_up(world: Any, house: House) -> None:
    house.batch(1)
    house.limit("month", tokens=10**6)
    house.settle(*world.claim_all(house.worker), tokens=10)
    world.tally()
    world.sql("UPDATE day_totals SET day = date_trunc('month', day)")
    house.batch(1)
    house.settle(*world.claim_all(house.worker), tokens=10)
    world.tally()
    assert house.left(BudgetName.TENANT_MONTH).spent.tokens == 20
    world.pass_days(31)
    assert house.left(BudgetName.TENANT_MONTH).spent.tokens == 0


def test_running_jobs_keep_their_reserve_over_the_turn_of_the_day(world: Any, house: House) -> None:
    house.batch(3)
    house.limit(tokens=20)
    jobs = world.claim_all(house.worker)
    world.pass_days(1)
    assert (house.left().spent.tokens, house.left().reserved_tokens) == (0, 20)
    assert world.claim_all(house.worker) == []
    house.settle(*jobs, tokens=10)
    assert house.left().spent.tokens == 20, "both counts toward the new day"


def test_the_budget_of_a_key_holds_its_own_batches_only(world: Any, house: House) -> None:
    own, other = house.batch(2, key=house.key), house.batch(2)
    house.limit(key=house.key, tokens=10)
    assert world.claim_all(house.worker) == [world.jobs(own)[0], *world.jobs(other)]
    with world.engine.connect() as connection:
        found = allowances(connection, [own, other])
    assert [limit.budget for limit in found[own].limits] == [BudgetName.KEY_DAY]
    assert other not in found


def test_a_tick_past_a_tenants_dollars_hands_all_its_jobs_back_with_their_trees(world: Any, house: House) -> None:
    batches = [house.batch(1), house.batch(1)]
    stranger = world.batch(1)
    jobs = world.claim_all(house.worker)
    deltas = {job: [{"nodes": [{"node": 1, "ids": [0, 0]}]}] for job in jobs}
    house.limit(nanodollars=1)
    reply = world.tick(house.worker, deltas=deltas, work=world.work(*jobs))
    assert list(reply.dropped) == [job for batch in batches for job in world.jobs(batch)]
    assert world.sql("SELECT sum(num_tokens) AS n FROM tree_deltas")[0].n == 6
    assert world.states(stranger) == ["pending"]
    assert world.sql("SELECT count(*) AS n FROM attempts WHERE ended_at IS NULL")[0].n == 1
    assert all(house.is_exhausted(batch) for batch in batches)


def test_spending_counts_from_the_first_day_that_has_it_even_before_there_is_a_budget(world: Any, house: House) -> None:
    house.batch(1)
    house.settle(*world.claim_all(house.worker), tokens=7)
    world.tally()
    house.limit(tokens=100)
    assert house.left().spent.tokens == 7
    (booked,) = world.sql("SELECT sum(nanodollars) AS n FROM ledger_entries WHERE batch_id IS NOT NULL")
    assert house.left().spent.nanodollars == booked.n > 0


def test_claims_of_one_tenant_take_turns_and_wait_only_a_while(world: Any, house: House) -> None:
    batch = house.batch(2)
    house.limit(tokens=100)
    (shard,) = world.dispatch()
    with world.engine.begin() as frozen:
        frozen.exec_driver_sql(f"SELECT 1 FROM tenants WHERE id = '{house.tenant}' FOR NO KEY UPDATE")
        assert world.claim(shard, house.worker) is None
        assert world.tick(house.worker).dropped == ()
    assert world.claim_all(house.worker) == world.jobs(batch)


def test_folding_keeps_one_row_of_a_tenant_key_and_day(world: Any, house: House) -> None:
    for key in (None, None, house.key):
        house.batch(2, key=key)
    house.limit(tokens=10**6)
    for job in world.claim_all(house.worker):
        house.settle(job, tokens=3)
        before = house.left()
        world.tally()
        assert house.left() == before
    assert [row.generated_tokens for row in world.sql("SELECT * FROM day_totals ORDER BY key_id")] == [6, 12]


def test_a_batch_stays_exhausted_while_another_holds_a_reserve_and_at_its_end_its_jobs_say_so(
    world: Any, house: House
) -> None:
    batch = house.batch(2)
    house.limit(tokens=15)
    house.settle(*world.claim_all(house.worker), tokens=10)
    assert house.is_exhausted(batch)
    house.batch(1, cap=2)
    (small,) = world.claim_all(house.worker)
    assert (house.left().reserved_tokens, house.is_exhausted(batch)) == (2, True)
    world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=batch)
    house.settle(small, tokens=1)
    assert house.is_exhausted(batch), "its error file names the budget"


def test_a_batch_that_got_a_job_in_is_no_longer_exhausted(world: Any, house: House) -> None:
    batch = house.batch(2)
    house.limit(tokens=15)
    house.settle(*world.claim_all(house.worker), tokens=10)
    assert house.is_exhausted(batch)
    house.limit(tokens=25)
    assert not house.is_exhausted(batch)
    (job,) = world.claim_all(house.worker)
    world.sql("UPDATE batches SET exhausted_at = clock_timestamp() WHERE id = :id", id=batch)
    assert not house.is_exhausted(batch), "it was claimed while it was being marked"
    house.settle(job, tokens=10)


@pytest.mark.parametrize(("cap", "room"), [(10, 9), (None, 1_023)])
def test_nothing_is_cut_of_a_batch_whose_smallest_job_does_not_fit(
    world: Any, house: House, cap: int | None, room: int
) -> None:
    """The context of the model has 1,024 tokens, which limit a job without tokens of its own."""
    batch = house.batch(30, cap=cap)
    house.limit(tokens=room)
    assert world.dispatch() == []
    assert house.is_exhausted(batch)
    world.sql("DELETE FROM budgets")
    world.sql("UPDATE batches SET limit_tokens = :room", room=room)
    assert world.dispatch() == []
    assert house.is_exhausted(batch)
    world.sql("UPDATE batches SET limit_tokens = :room + 1", room=room)
    assert not house.is_exhausted(batch)
    assert world.claim_all(house.worker) == world.jobs(batch)[:1]
    (left,) = world.sql("SELECT DISTINCT least_tokens FROM shards WHERE state = 'queued'")
    assert left.least_tokens == room + 1, "its jobs go out again only when there is room for one"
