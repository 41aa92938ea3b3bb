"""In any order of ticks, crashes, releases, claims and new days, no batch, key or tenant generates more tokens than it
may, and none costs more than its dollars and one tick of each worker.
"""

from __future__ import annotations

import json
from collections import defaultdict
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ponder.domain.batch.submission import Change
from ponder.domain.budget import BudgetName
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

    def claim(self, shard_id: int, walled: set[str]) -> None:
        """Claims a shard. Jobs of the `walled` batches come with a limit of tokens, whether they had one or not."""
        claimed = self.world.claim(shard_id, self.id)
        for job in claimed.jobs if claimed else ():
            assert job.request["budget"].get("tokens", None if job.batch_id in walled else CAP) == CAP
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


STEPS = ["tick"] * 5 + ["claim"] * 3 + ["release", "die", "start", "fold", "fold", "pause", "raise", "midnight"]

_Limits = tuple[int | None, int | None]


@pytest.mark.timeout(900)
def test_budgets_hold_whatever_happens(world: Any) -> None:
    _check(world)


# Drawn from a seed: hypothesis would mostly try short plays and small changes of earlier ones.
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking against a database takes minutes
)
@given(seed=st.integers(0, 2**63))
def _check(world: Any, seed: int) -> None:
    world.sql("TRUNCATE tenants, incarnations, models CASCADE")
    draw = Random(seed)
    prices = [int(10 ** draw.uniform(0, 11)) for _ in range(draw.randint(2, 3))]
    lengths = [draw.randint(1, CAP) for _ in range(draw.randint(4, 12))]
    names = draw.sample(list(BudgetName), draw.randint(1, 4))
    play = Play(world, prices, lengths, {name: _limits(draw) for name in names})
    play.run([(draw.choice(STEPS), draw.randint(0, 7), draw.randint(1, 12)) for _ in range(draw.randint(10, 35))])


def _limits(draw: Random) -> _Limits:
    """Draws the tokens of a budget, and its dollars as seconds of a worker, or one of them."""
    tokens, seconds = draw.randint(CAP, 120), draw.randint(1, 60)
    return draw.choice([(tokens, seconds), (tokens, None), (None, seconds)])


class Play:
    """A tenant with two batches. The first has a key, and a budget of its own. Every other job has no token budget."""

    def __init__(self, world: Any, prices: list[int], lengths: list[int], limits: dict[BudgetName, _Limits]) -> None:
        self.world = world
        self.tenant = world.tenant()
        self.key = world.key(self.tenant)
        half = len(lengths) // 2
        numbers = {"key": self.key, "tenant": self.tenant, "budget": {"tokens": CAP}}
        self.batches = [world.batch(half, **numbers), world.batch(len(lengths) - half, **numbers | {"key": None})]
        jobs = [job for batch in self.batches for job in world.jobs(batch)]
        self.lengths = dict(zip(jobs, lengths, strict=True))
        world.sql(
            "UPDATE jobs SET request = request || CAST(:request AS jsonb) WHERE id = ANY(CAST(:ids AS bigint[]))",
            request=json.dumps({"budget": {}, "sampling": {"max_tokens": CAP}}),
            ids=jobs[::2],
        )
        self.prices = prices
        self.workers = [Worker(world, price) for price in prices]
        self.messages: list[int] = []
        self.limits = {
            name: (tokens, None if seconds is None else seconds * max(prices) // 3_600 + 1)
            for name, (tokens, seconds) in limits.items()
        }
        self.before: dict[BudgetName, tuple[int, int]] = dict.fromkeys(BudgetName, (0, 0))
        """The tokens and nano-dollars spent before the last midnight."""
        self.tick_costs: dict[str, int] = defaultdict(int)
        self.set_limits()

    def set_limits(self) -> None:
        for name, (tokens, nanodollars) in self.limits.items():
            owner, _, period = name.partition("_")
            values = {"tokens": tokens, "nanodollars": nanodollars}
            if name is BudgetName.BATCH:
                self.world.sql(
                    "UPDATE batches SET limit_tokens = CAST(:tokens AS bigint),"
                    " limit_nanodollars = CAST(:nanodollars AS bigint) WHERE id = :id",
                    id=self.batches[0],
                    **values,
                )
            else:
                self.world.limit(self.tenant, self.key if owner == "key" else None, period, **values)

    def run(self, steps: list[tuple[str, int, int]]) -> None:
        self.claim_all()
        for step, number, amount in steps:
            alive = [worker for worker in self.workers if worker.is_alive]
            self.step(step, alive[number % len(alive)] if alive else None, amount)
            self.check()
        self.run_out()
        self.midnight()
        self.check()
        self.run_out()

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
            self.pause(amount % 2 == 0)
        elif step == "midnight":
            self.midnight()
        else:
            self.limits = {
                name: (tokens and tokens + amount, nanodollars and nanodollars + amount)
                for name, (tokens, nanodollars) in self.limits.items()
            }
            self.set_limits()

    def midnight(self) -> None:
        """Begins another day and month."""
        self.world.pass_days(40)
        for name in BudgetName:
            if name is not BudgetName.BATCH:
                self.before[name] = (self.generated(name), self.booked(name))

    def pause(self, paused: bool) -> None:
        if self.world.state(self.batches[0]) != "in_progress":
            return
        with self.world.engine.begin() as connection:
            change(connection, self.tenant, self.batches[0], Change.model_validate({"ponder": {"paused": paused}}))

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
                        worker.claim(shard, self.walled)

    @property
    def walled(self) -> set[str]:
        """The batches that draw on a budget of tokens."""
        return {batch for name, (tokens, _) in self.limits.items() if tokens is not None for batch in self.of(name)}

    def of(self, name: BudgetName) -> list[str]:
        """The batches that draw on a budget."""
        return self.batches if name.startswith("tenant") else self.batches[:1]

    def generated(self, name: BudgetName) -> int:
        """All tokens of all trees, settled or not, each once."""
        rows = self.world.sql(
            "SELECT (SELECT coalesce(sum(completion_tokens), 0) FROM usage JOIN jobs ON jobs.id = job_id"
            "        WHERE batch_id = ANY(CAST(:ids AS text[])))"
            " + (SELECT coalesce(sum(num_tokens), 0) FROM tree_deltas WHERE batch_id = ANY(CAST(:ids AS text[]))) AS n",
            ids=self.of(name),
        )
        return int(rows[0].n)

    def booked(self, name: BudgetName) -> int:
        rows = self.world.sql(
            "SELECT coalesce(sum(nanodollars), 0) AS n FROM ledger_entries WHERE batch_id = ANY(CAST(:ids AS text[]))",
            ids=self.of(name),
        )
        return int(rows[0].n)

    def check(self) -> None:
        found = {limit.budget: limit for allowance in self.allowances().values() for limit in allowance.limits}
        assert found.keys() == self.limits.keys()
        for name, limit in found.items():
            tokens_before, nanodollars_before = self.before[name]
            assert limit.spent.tokens == self.generated(name) - tokens_before
            assert limit.spent.nanodollars == self.booked(name) - nanodollars_before
            if limit.tokens is not None:
                assert limit.spent.tokens + limit.reserved_tokens <= limit.tokens
            if limit.nanodollars is not None:
                overshoot = limit.spent.nanodollars - limit.nanodollars
                assert overshoot <= sum(self.tick_costs.values()), "at most one tick of each worker more"

    def allowances(self) -> dict[str, Any]:
        with self.world.engine.connect() as connection:
            return allowances(connection, self.batches)

    def run_out(self) -> None:
        """Runs what the budgets allow, until nothing is left or fits; then all is returned and the books balance."""
        self.pause(False)
        self.step("start", None, 0)
        for _ in range(60):
            self.claim_all()
            self.world.finish()
            is_idle = not any(worker.trees for worker in self.workers if worker.is_alive)
            if is_idle and all(self.is_over(batch) for batch in self.batches):
                break
            for worker in self.workers:
                if worker.is_alive:
                    self.tick(worker, 12)
            self.check()
        else:
            raise AssertionError("jobs stay pending although the budgets have room for them")
        for batch, found in self.allowances().items():
            for limit in found.limits:
                assert (limit.reserved_tokens, limit.reserved_nanodollars, limit.num_unreserved) == (0, 0, 0)
            if self.world.state(batch) == "in_progress":
                least = min(CAP - tokens for tokens in self.saved_of_pending(batch))
                assert not found.admits(least)
                assert found.exhausted(least) is not None
        for row in self.world.sql("SELECT id FROM incarnations"):
            self.world.billed(row.id)

    def saved_of_pending(self, batch: str) -> list[int]:
        rows = self.world.sql(
            "SELECT (SELECT coalesce(sum(num_tokens), 0) FROM tree_deltas WHERE job_id = jobs.id) AS n"
            " FROM jobs WHERE batch_id = :id AND state = 'pending'",
            id=batch,
        )
        return [int(row.n) for row in rows]

    def is_over(self, batch: str) -> bool:
        row = self.world.sql("SELECT state, exhausted_at FROM batches WHERE id = :id", id=batch)[0]
        return row.state == "completed" or row.exhausted_at is not None
