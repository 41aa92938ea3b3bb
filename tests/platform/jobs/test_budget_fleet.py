"""In any order of ticks, crashes, releases and claims, no batch generates more tokens than it may, and none costs more
than its dollars and one tick of each worker.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ponder.domain.batch.submission import Change
from ponder.errors import LeaseLost
from ponder.jobs.batch.change import change
from ponder.jobs.dispatching.sweep import sweep
from ponder.jobs.tally import tally
from ponder.jobs.tick import Settlement, Usage
from ponder.ledger.price_book import set_price
from ponder.ledger.spending import allowances

CAP = 20
"""The most tokens of a job."""


class Worker:
    """A worker whose jobs grow from their trees, each up to its own end."""

    def __init__(self, world: Any, nanodollars_per_hour: int) -> None:
        self.world = world
        machine = f"for {nanodollars_per_hour}"
        with world.engine.begin() as connection:
            set_price(connection, machine, "spot", nanodollars_per_hour, source="test")
        self.id = world.worker(room_tokens=400, machine=machine)
        self.trees: dict[int, int] = {}
        self.is_alive = True

    def claim(self, shard_id: int) -> None:
        claimed = self.world.claim(shard_id, self.id)
        for job in claimed.jobs if claimed else ():
            assert job.request["budget"]["tokens"] == CAP
            self.trees[job.job_id] = sum(len(node["ids"]) for delta in job.deltas for node in delta["nodes"])

    def tick(self, growth: int, lengths: dict[int, int], seconds: float) -> None:
        """Grows every job by so many tokens, and settles those that have reached their length."""
        self.world.sql(
            "UPDATE incarnations SET billed_until = billed_until - :s * interval '1 second',"
            " started_at = started_at - :s * interval '1 second' WHERE id = :id",
            s=seconds,
            id=self.id,
        )
        grown = {job_id: min(growth, lengths[job_id] - tokens) for job_id, tokens in self.trees.items()}
        done = {job_id for job_id, more in grown.items() if self.trees[job_id] + more == lengths[job_id]}
        reply = self.world.tick(
            self.id,
            settled=[self._settlement(job_id, lengths[job_id]) for job_id in sorted(done)],
            deltas={
                job_id: [{"nodes": [{"node": 1, "ids": [0] * more}]}]
                for job_id, more in grown.items()
                if job_id not in done
            },
            work=self.world.work(*self.trees),
        )
        self.trees = {
            job_id: tokens + grown[job_id]
            for job_id, tokens in self.trees.items()
            if job_id not in done and job_id not in reply.dropped
        }

    def _settlement(self, job_id: int, tokens: int) -> Settlement:
        passed = self.world.passed(job_id)
        return Settlement(
            job_id, passed.state, passed.verdict, tree={"nodes": []}, usage=Usage(completion_tokens=tokens)
        )


_steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["tick", "tick", "tick", "claim", "claim", "release", "die", "start", "fold", "pause", "raise"]
        ),
        st.integers(0, 7),
        st.integers(1, 12),
    ),
    min_size=5,
    max_size=30,
)


@pytest.mark.timeout(600)
def test_budgets_hold_whatever_happens(world: Any) -> None:
    _check(world)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking against a database takes minutes
)
@given(
    prices=st.lists(st.integers(1, 10**11), min_size=2, max_size=3),
    lengths=st.lists(st.integers(1, CAP), min_size=4, max_size=10),
    limit_tokens=st.none() | st.integers(CAP, 120),
    limit_seconds=st.none() | st.integers(1, 60),
    steps=_steps,
)
def _check(
    world: Any,
    prices: list[int],
    lengths: list[int],
    limit_tokens: int | None,
    limit_seconds: int | None,
    steps: list[tuple[str, int, int]],
) -> None:
    world.sql("TRUNCATE tenants, incarnations, models CASCADE")
    Play(world, prices, lengths, limit_tokens, limit_seconds).run(steps)


class Play:
    def __init__(
        self, world: Any, prices: list[int], lengths: list[int], limit_tokens: int | None, limit_seconds: int | None
    ) -> None:
        self.world = world
        self.tenant = world.tenant()
        self.batch = world.batch(len(lengths), tenant=self.tenant, budget={"tokens": CAP})
        self.lengths = dict(zip(world.jobs(self.batch), lengths, strict=True))
        self.prices = prices
        self.workers = [Worker(world, price) for price in prices]
        self.messages: list[int] = []
        self.limit_tokens = limit_tokens
        self.limit = None if limit_seconds is None else limit_seconds * max(prices) // 3_600 + 1
        self.tick_costs: dict[str, int] = defaultdict(int)
        self.set_limits()

    def set_limits(self) -> None:
        self.world.sql(
            "UPDATE batches SET limit_tokens = CAST(:tokens AS bigint), limit_nanodollars = CAST(:limit AS bigint)"
            " WHERE id = :id",
            tokens=self.limit_tokens,
            limit=self.limit,
            id=self.batch,
        )

    def run(self, steps: list[tuple[str, int, int]]) -> None:
        self.claim_all()
        for step, number, amount in steps:
            alive = [worker for worker in self.workers if worker.is_alive]
            self.step(step, alive[number % len(alive)] if alive else None, amount)
            self.check()
        self.finish()

    def step(self, step: str, worker: Worker | None, amount: int) -> None:
        if step == "start" or worker is None:
            self.workers.append(Worker(self.world, self.prices[amount % len(self.prices)]))
        elif step == "tick":
            self.tick(worker, amount)
        elif step == "claim":
            self.claim_all()
        elif step == "release":
            self.world.release(worker.id)
            worker.is_alive = False
        elif step == "die":
            self.world.lapse(worker.id)
            worker.is_alive = False
            with pytest.raises(LeaseLost):
                self.world.tick(worker.id)
            sweep(self.world.engine, shard_tokens=self.world.shard_tokens)
        elif step == "fold":
            with self.world.engine.begin() as connection:
                tally(connection)
        elif step == "pause":
            self.change(paused=amount % 2 == 0)
        else:
            self.limit = None if self.limit is None else self.limit + amount
            self.limit_tokens = None if self.limit_tokens is None else self.limit_tokens + amount
            self.set_limits()

    def change(self, **ponder: Any) -> None:
        with self.world.engine.begin() as connection:
            change(connection, self.tenant, self.batch, Change.model_validate({"ponder": ponder}))

    def tick(self, worker: Worker, amount: int) -> None:
        before = self.spent_by(worker)
        worker.tick(amount, self.lengths, seconds=amount)
        self.tick_costs[worker.id] = max(self.tick_costs[worker.id], self.spent_by(worker) - before)

    def spent_by(self, worker: Worker) -> int:
        return int(
            self.world.sql(
                "SELECT coalesce(sum(nanodollars), 0) AS n FROM ledger_entries"
                " WHERE batch_id IS NOT NULL AND incarnation_id = :id",
                id=worker.id,
            )[0].n
        )

    def claim_all(self) -> None:
        for _ in range(3):
            for worker in self.workers:
                if worker.is_alive:
                    for shard in [*self.world.dispatch(), *self.messages]:
                        worker.claim(shard)

    def generated(self) -> int:
        """All tokens of all trees, settled or not, each once."""
        rows = self.world.sql(
            "SELECT (SELECT coalesce(sum(completion_tokens), 0) FROM usage)"
            " + (SELECT coalesce(sum(num_tokens), 0) FROM tree_deltas) AS n"
        )
        return int(rows[0].n)

    def check(self) -> None:
        found = self.allowance()
        if found is None:
            return
        assert found.spent.tokens == self.generated()
        booked = sum(self.spent_by(worker) for worker in self.workers)
        assert found.spent.nanodollars == booked
        if self.limit_tokens is not None:
            assert found.spent.tokens + found.reserved_tokens <= self.limit_tokens
        if self.limit is not None:
            assert booked - self.limit <= sum(self.tick_costs.values()), "at most one tick of each worker more"

    def allowance(self) -> Any:
        with self.world.engine.connect() as connection:
            return allowances(connection, [self.batch]).get(self.batch)

    def finish(self) -> None:
        """Runs what the budget allows, until nothing is left or fits; then all is returned and the books balance."""
        self.change(paused=False)
        self.step("start", None, 0)
        for _ in range(60):
            self.claim_all()
            self.world.finish()
            if self.world.state(self.batch) == "completed":
                break
            if not any(worker.trees for worker in self.workers if worker.is_alive) and self.is_exhausted():
                break
            for worker in self.workers:
                if worker.is_alive:
                    self.tick(worker, 12)
            self.check()
        else:
            raise AssertionError("jobs stay pending although the budget has room for them")
        found = self.allowance()
        if found is not None:
            assert (found.reserved_tokens, found.reserved_nanodollars, found.num_running) == (0, 0, 0)
            if self.world.state(self.batch) == "in_progress":
                assert not found.admits(min(CAP - tokens for tokens in self.saved_of_pending()))
        for row in self.world.sql("SELECT id FROM incarnations"):
            self.world.billed(row.id)

    def saved_of_pending(self) -> list[int]:
        rows = self.world.sql(
            "SELECT (SELECT coalesce(sum(num_tokens), 0) FROM tree_deltas WHERE job_id = jobs.id) AS n"
            " FROM jobs WHERE batch_id = :id AND state = 'pending'",
            id=self.batch,
        )
        return [int(row.n) for row in rows]

    def is_exhausted(self) -> bool:
        row = self.world.sql("SELECT exhausted_at FROM batches WHERE id = :id", id=self.batch)[0]
        return row.exhausted_at is not None
