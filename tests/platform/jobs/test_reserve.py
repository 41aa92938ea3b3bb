from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.batch.submission import Change
from ponder.jobs.batch.change import change
from ponder.jobs.dispatching.sweep import sweep
from ponder.jobs.reserve import Turn, take_turn
from ponder.jobs.tally import tally
from ponder.jobs.tick import Settlement, Usage
from ponder.ledger.spending import allowances


class Purse:
    """A batch with a budget in a world, and a worker for it."""

    def __init__(self, world: Any, num_jobs: int, *, cap: int | None = 10, **limits: int) -> None:
        self.world = world
        self.batch = world.batch(num_jobs, budget={"tokens": cap})
        if limits:
            self.limit(**limits)
        self.worker = world.worker()

    def limit(self, **limits: int) -> None:
        columns = ", ".join(f"limit_{name} = :{name}" for name in limits)
        self.world.sql(f"UPDATE batches SET {columns} WHERE id = :id", id=self.batch, **limits)

    def change(self, **ponder: Any) -> None:
        tenant_id = self.world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=self.batch)[0].tenant_id
        with self.world.engine.begin() as connection:
            change(connection, tenant_id, self.batch, Change.model_validate({"ponder": ponder}))

    @property
    def allowance(self) -> Any:
        with self.world.engine.connect() as connection:
            return allowances(connection, [self.batch])[self.batch]

    @property
    def own(self) -> Any:
        return self.allowance.own

    def grow(self, job_id: int, num_tokens: int, **said: Any) -> Any:
        deltas = {job_id: [{"nodes": [{"node": 1, "ids": [0] * num_tokens}]}]}
        return self.world.tick(self.worker, deltas=deltas, work=self.world.work(job_id), **said)

    def settle(self, *job_ids: int, tokens: int = 5) -> Any:
        return self.world.tick(self.worker, settled=[self.passed(job_id, tokens) for job_id in job_ids])

    def passed(self, job_id: int, tokens: int) -> Settlement:
        done = self.world.passed(job_id)
        return Settlement(job_id, done.state, done.verdict, tree={"nodes": []}, usage=Usage(completion_tokens=tokens))

    def is_exhausted(self) -> bool:
        self.world.finish()
        return self.exhausted_at is not None

    @property
    def exhausted_at(self) -> Any:
        return self.world.sql("SELECT exhausted_at FROM batches WHERE id = :id", id=self.batch)[0].exhausted_at


def test_a_claim_takes_only_jobs_whose_tokens_fit_and_settling_returns_the_rest(world: Any) -> None:
    purse = Purse(world, 5, tokens=25)
    first, second = world.claim_all(purse.worker)
    assert (purse.own.reserved_tokens, purse.allowance.room_tokens) == (20, 5)
    purse.grow(first, 4)
    assert (purse.allowance.spent.tokens, purse.own.reserved_tokens) == (4, 16)
    purse.settle(first, second, tokens=7)
    assert (purse.allowance.spent.tokens, purse.own.reserved_tokens) == (14, 0)
    (third,) = world.claim_all(purse.worker)
    purse.settle(third, tokens=10)
    assert world.claim_all(purse.worker) == []
    assert purse.allowance.room_tokens == 1
    assert world.states(purse.batch).count("pending") == 2
    assert purse.is_exhausted()


def test_a_job_that_was_handed_back_reserves_only_what_its_tree_has_left(world: Any) -> None:
    purse = Purse(world, 1, tokens=10)
    (job,) = world.claim_all(purse.worker)
    purse.grow(job, 6)
    world.release(purse.worker)
    assert (purse.allowance.spent.tokens, purse.own.reserved_tokens) == (6, 0)
    purse.worker = world.worker()
    assert world.claim_all(purse.worker) == [job]
    assert purse.own.reserved_tokens == 4
    purse.settle(job, tokens=10)
    assert purse.allowance.spent.tokens == 10


def test_a_lost_worker_returns_what_it_had_reserved(world: Any) -> None:
    purse = Purse(world, 2, tokens=20)
    first, _ = world.claim_all(purse.worker)
    purse.grow(first, 3)
    world.lapse(purse.worker)
    sweep(world.engine, shard_tokens=1_000)
    assert (purse.allowance.spent.tokens, purse.own.reserved_tokens) == (3, 0)


def test_a_small_job_goes_on_where_a_large_one_does_not_fit(world: Any) -> None:
    purse = Purse(world, 2, tokens=5)
    large, small = world.jobs(purse.batch)
    world.sql("UPDATE jobs SET request = jsonb_set(request, '{budget,tokens}', '5') WHERE id = :id", id=small)
    world.sql("UPDATE portions SET least_tokens = NULL")
    assert world.claim_all(purse.worker) == [small]
    assert world.states(purse.batch) == ["pending", "pending"]
    purse.settle(small)
    assert world.claim_all(purse.worker) == []
    assert purse.is_exhausted()
    purse.change(batch_budget={"tokens": 15})
    assert world.claim_all(purse.worker) == [large]


def test_a_job_without_a_limit_of_its_own_gets_the_most_that_its_strategy_can_reach(world: Any) -> None:
    """The context of the model has 1,024 tokens."""
    purse = Purse(world, 2, cap=None, tokens=1_500)
    (shard,) = world.dispatch()
    claimed = world.claim(shard, purse.worker)
    assert [job.request["budget"]["tokens"] for job in claimed.jobs] == [1_024]
    again = world.claim(shard, purse.worker)
    assert [(job.job_id, job.request) for job in again.jobs] == [(job.job_id, job.request) for job in claimed.jobs]
    assert purse.own.reserved_tokens == 1_024


def test_a_tick_past_the_dollars_hands_all_jobs_back_with_their_trees(world: Any) -> None:
    purse = Purse(world, 1, nanodollars=10**15)
    jobs = world.claim_all(purse.worker)
    purse.grow(jobs[0], 6)
    purse.limit(nanodollars=1)
    reply = purse.grow(jobs[0], 2)
    assert list(reply.dropped) == jobs
    assert [row.outcome for row in world.sql("SELECT outcome FROM attempts")] == ["preempted"] * len(jobs)
    assert world.sql("SELECT sum(num_tokens) AS n FROM tree_deltas")[0].n == 8
    assert purse.own.reserved_nanodollars == 0
    assert world.dispatch() == []
    assert purse.is_exhausted()
    assert purse.settle(*jobs).dropped == (), "its result comes too late"
    purse.change(batch_budget={"dollars": 1e6})
    assert world.claim_all(purse.worker) == jobs
    world.billed(purse.worker)


def test_a_lost_reply_names_the_jobs_that_were_handed_back_again(world: Any) -> None:
    purse = Purse(world, 1, nanodollars=10**15)
    jobs = world.claim_all(purse.worker)
    purse.change(paused=True)
    report = world.report(purse.worker)
    assert list(world.send(report).dropped) == jobs
    assert list(world.send(report).dropped) == jobs


def test_a_worker_gets_jobs_it_has_handed_back_only_after_its_next_tick(world: Any) -> None:
    """A message to drop them may still be on its way to its engine."""
    purse = Purse(world, 2)
    jobs = world.claim_all(purse.worker)
    purse.change(paused=True)
    world.tick(purse.worker)
    purse.change(paused=False)
    (shard,) = world.dispatch()
    assert world.claim(shard, purse.worker) is None
    world.tick(purse.worker)
    assert world.claim_all(purse.worker) == jobs


def test_a_paused_batch_gives_no_jobs_and_takes_them_back_until_it_is_resumed(world: Any) -> None:
    purse = Purse(world, 10)
    (shard,) = world.dispatch()
    purse.change(paused=True)
    assert world.claim(shard, purse.worker) is None
    assert world.dispatch() == []
    assert not purse.is_exhausted()
    purse.change(paused=False)
    assert world.claim_all(purse.worker) == world.jobs(purse.batch)


def test_the_first_jobs_take_an_eighth_and_later_ones_the_mean_of_the_settled(world: Any) -> None:
    purse = Purse(world, 24, nanodollars=3_000_000_000)
    first = world.claim_all(purse.worker)
    assert len(first) == 3
    purse.grow(first[0], 1)
    purse.settle(first[0])
    spent = purse.allowance.spent
    assert (spent.num_settled, spent.settled_nanodollars) == (1, spent.nanodollars)
    assert purse.allowance.job_nanodollars == spent.nanodollars > 0


def test_a_limit_of_tokens_for_running_jobs_takes_them_back_first(world: Any) -> None:
    purse = Purse(world, 3)
    jobs = world.claim_all(purse.worker)
    purse.change(batch_budget={"tokens": 20})
    assert list(world.tick(purse.worker).dropped) == jobs
    world.tick(purse.worker)
    assert world.claim_all(purse.worker) == jobs[:2]


def test_folding_leaves_the_sums_as_they_are(world: Any) -> None:
    purse = Purse(world, 3, tokens=100, nanodollars=10**15)
    for job in world.claim_all(purse.worker):
        purse.grow(job, 2)
        before = purse.allowance
        with world.engine.begin() as connection:
            tally(connection)
        assert purse.allowance == before
        assert world.sql("SELECT 1 FROM tallies") == []


def test_a_claim_does_not_wait_for_one_that_is_frozen_in_its_transaction(world: Any) -> None:
    purse = Purse(world, 2, tokens=100)
    shard, *_ = world.dispatch()
    with world.engine.begin() as frozen:
        frozen.exec_driver_sql(f"SELECT 1 FROM batches WHERE id = '{purse.batch}' FOR NO KEY UPDATE")
        assert world.claim(shard, purse.worker) is None
        assert world.tick(purse.worker).dropped == ()
    assert world.claim_all(purse.worker) == world.jobs(purse.batch)


def test_only_another_budget_makes_a_batch_go_on_at_once(world: Any) -> None:
    purse = Purse(world, 2, tokens=15)
    purse.settle(*world.claim_all(purse.worker), tokens=10)
    assert purse.is_exhausted()
    for said in ({"priority": "interactive"}, {"paused": True}, {"paused": False}, {"batch_budget": {"tokens": 15}}):
        purse.change(**said)
        assert purse.exhausted_at is not None, said
    purse.change(paused=True)
    assert purse.is_exhausted()
    purse.change(batch_budget={"tokens": 16})
    assert purse.exhausted_at is None
    purse.change(paused=False)
    assert purse.is_exhausted(), "16 tokens are too few as well"


def test_a_limit_set_during_a_claim_gives_the_shard_back(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    purse = Purse(world, 2)
    (shard,) = world.dispatch()

    def overtaken(*args: Any) -> Turn:
        turn = take_turn(*args)
        purse.limit(tokens=15)
        return turn

    with monkeypatch.context() as patched:
        patched.setattr("ponder.jobs.claim.take_turn", overtaken)
        assert world.claim(shard, purse.worker) is None
    assert world.claim_all(purse.worker) == world.jobs(purse.batch)[:1]
    assert purse.own.reserved_tokens == 10


@pytest.mark.parametrize("limit", ["tokens", "nanodollars"])
def test_at_expiry_the_jobs_of_an_exhausted_batch_say_so(world: Any, limit: str) -> None:
    purse = Purse(world, 2, **{limit: 1})
    world.sql("UPDATE batches SET num_lines = 2 WHERE id = :id", id=purse.batch)
    world.claim_all(purse.worker)
    if limit == "nanodollars":
        purse.grow(world.jobs(purse.batch)[0], 1)
    assert purse.is_exhausted()
    world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=purse.batch)
    world.finish()
    assert world.states(purse.batch) == ["expired", "expired"]
    assert world.sql("SELECT exhausted_at FROM batches WHERE error_file_id IS NOT NULL")[0].exhausted_at is not None


def test_the_output_file_of_an_exhausted_batch_is_measured_again_at_its_end(world: Any) -> None:
    purse = Purse(world, 2, tokens=15)
    world.tick(purse.worker, settled=[purse.passed(*world.claim_all(purse.worker), 10)])
    assert purse.is_exhausted()
    world.sql("UPDATE files SET bytes = 99 WHERE kind = 'output'")
    purse.change(batch_budget={"tokens": 20})
    world.tick(purse.worker, settled=[purse.passed(*world.claim_all(purse.worker), 10)])
    world.finish()
    assert world.state(purse.batch) == "completed"
    assert [row.bytes for row in world.sql("SELECT bytes FROM files WHERE kind = 'output'")] == [0]
