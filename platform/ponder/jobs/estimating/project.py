"""Projects what a batch in progress will have spent in the end, when that will be, and whether its budgets suffice."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from ponder.domain.budget import BudgetName, Limit, Measure
from ponder.domain.forecast.total import COVERAGE, Total
from ponder.domain.storable import JsonObject
from ponder.jobs.estimating.predict import Prediction, predict_batch
from ponder.jobs.tally import Totals

_HOUR_S = 3_600
_PACE = 0.15**2
"""The relative variance of the pace: workers pause between steps, and what they share changes."""

_RUNNING = text("""
    SELECT count(*) AS all, clock_timestamp() AS now,
           count(*) FILTER (WHERE batch_id = :batch_id) AS of_batch,
           count(*) FILTER (WHERE key_id = (SELECT key_id FROM batches WHERE id = :batch_id)) AS of_key,
           count(*) FILTER (WHERE shards.tenant_id = :tenant_id) AS of_tenant
    FROM shards JOIN attempts ON attempts.shard_id = shards.id AND attempts.ended_at IS NULL
         JOIN batches ON batches.id = shards.batch_id
    WHERE shards.state = 'held' AND fingerprint = ANY(CAST(:fingerprints AS text[]))
""")


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a batch in progress, from its row and its totals."""

    batch_id: str
    tenant_id: str
    num_lines: int
    limits: tuple[Limit, ...]
    """The budgets that it draws on."""
    totals: Totals
    num_pilot: int
    """The jobs of its pilot, or 0."""

    @property
    def num_pending(self) -> int:
        return self.num_lines - self.totals.num_rejected - self.totals.num_settled


def project(connection: Connection, progress: Progress) -> JsonObject | None:
    """Returns the projection of a batch in progress, or None if its jobs were never surveyed or none is left.

    Reads no job: what is left is known from the survey of the batch and the cells of its settled jobs.
    """
    if progress.num_pending < 1:
        return None
    left = predict_batch(
        connection,
        progress.tenant_id,
        progress.batch_id,
        num_pilot=progress.num_pilot,
        num_pending=progress.num_pending,
    )
    if left is None:
        return None
    found = left.totals
    running = _running(connection, progress, sorted(left.survey.fingerprints))
    share = running.batch
    total, seconds = _total(found, progress.totals), _seconds(found, share)
    ground = found.unknown or (f"{left.num_own:,} settled jobs of this batch" if left.num_own else "earlier jobs")
    pace = found.unknown or _pace(found.num_workers, share)
    return {
        "coverage": COVERAGE,
        "spent_nanodollars": progress.totals.direct_nanodollars,
        "total_nanodollars": _interval(total, progress.totals.direct_nanodollars) | {"rests_on": ground},
        "seconds_left": _interval(seconds) | {"rests_on": pace},
        "budget": _first_to_run_out(_Spending(found, progress, total, running)),
    }


@dataclass(frozen=True, slots=True)
class _Running:
    """The shares of the running jobs of a batch's models that are the batch's own, its key's and its tenant's."""

    now: datetime
    batch: float
    key: float
    tenant: float

    def share(self, budget: BudgetName) -> float:
        """Returns the share of the jobs that draw on a budget."""
        return {"batch": self.batch, "key": self.key, "tenant": self.tenant}[budget.value.partition("_")[0]]


def _running(connection: Connection, progress: Progress, fingerprints: list[str]) -> _Running:
    """Returns shares of 1 where none runs."""
    values = {"batch_id": progress.batch_id, "tenant_id": progress.tenant_id, "fingerprints": fingerprints}
    row = connection.execute(_RUNNING, values).one()
    shares = (float(own / row.all) if own else 1.0 for own in (row.of_batch, row.of_key, row.of_tenant))
    return _Running(row.now, *shares)


def _total(found: Prediction, totals: Totals) -> Total | None:
    """Adds what the settled jobs cost to what the others will."""
    if found.direct is None:
        return None
    settled, left = totals.settled_nanodollars, found.direct
    return Total(settled + left.mean, left.variance, settled + left.ceiling, settled + left.floor)


def _seconds(found: Prediction, share: float) -> Total | None:
    wall = found.wall_seconds(found.num_workers)
    return None if wall is None else wall.times(1 / share, _PACE)


def _pace(num_workers: int, share: float) -> str:
    if not num_workers:
        return "no worker of the model is alive"
    workers = f"{num_workers} worker{'s' * (num_workers != 1)}"
    return f"{workers} for this batch alone" if share == 1 else f"{share:.0%} of {workers}"


@dataclass(frozen=True, slots=True)
class _Need:
    """The room of a limit, what a batch needs of it, between `low` and `high`, and all workers' pace a second."""

    room: float
    low: float
    high: float
    rate: float


@dataclass(frozen=True, slots=True)
class _Spending:
    """The expected spending of a batch, and the pace of its models' workers.

    total: the direct cost of the whole batch.
    """

    found: Prediction
    progress: Progress
    total: Total | None
    running: _Running

    def dollars(self, limit: Limit) -> _Need:
        """Returns the nano-dollars that are left of a limit, and those that the batch needs."""
        assert limit.nanodollars is not None
        assert self.total is not None
        rate = sum(fleet.num_workers * fleet.nanodollars_per_hour for fleet in self.found.fleets) / _HOUR_S
        spent = self.progress.totals.direct_nanodollars
        return _Need(limit.nanodollars - limit.spent.nanodollars, self.total.low - spent, self.total.high - spent, rate)

    def tokens(self, limit: Limit) -> _Need:
        """Returns the tokens that are left of a limit, and those that the batch needs."""
        assert limit.tokens is not None
        wall = self.found.wall_seconds(self.found.num_workers)
        rate = self.found.generated.mean / wall.mean if wall is not None and wall.mean > 0 else 0.0
        left = self.found.generated
        # Running jobs have generated a part of theirs.
        saved = self.progress.totals.generated_tokens - self.progress.totals.completion_tokens
        return _Need(limit.tokens - limit.spent.tokens, left.low - saved, left.high - saved, rate)


@dataclass(frozen=True, slots=True)
class _Outlook:
    """Whether one limit of a budget lasts until the batch ends. `seconds`: if it may not, until it runs out."""

    budget: BudgetName
    measure: Measure
    runs_out: Literal["no", "maybe", "yes"]
    seconds: Total | None

    @classmethod
    def of(cls, limit: Limit, measure: Measure, spending: _Spending) -> _Outlook:
        need = spending.dollars(limit) if measure == "dollars" else spending.tokens(limit)
        if need.high <= need.room:
            return cls(limit.budget, measure, "no", None)
        pace = spending.running.share(limit.budget) * need.rate
        left = max(need.room, 0) / pace if pace > 0 else None
        until = math.inf if limit.renews_at is None else (limit.renews_at - spending.running.now).total_seconds()
        if left is not None and left > until:
            return cls(limit.budget, measure, "no", None)
        seconds = None if left is None else Total(left, _PACE * left**2)
        return cls(limit.budget, measure, "yes" if need.low > need.room else "maybe", seconds)

    @property
    def urgency(self) -> tuple[int, float]:
        return ("no", "maybe", "yes").index(self.runs_out), -self.seconds.mean if self.seconds is not None else 0.0


def _first_to_run_out(spending: _Spending) -> JsonObject | None:
    """Says whether a budget runs out before the batch ends, which one is the first, and in how many seconds."""
    outlooks = [
        _Outlook.of(limit, measure, spending)
        for limit in spending.progress.limits
        for measure in limit.shares
        if measure == "tokens" or spending.total is not None
    ]
    if not outlooks:
        return None
    first = max(outlooks, key=lambda outlook: outlook.urgency)
    return asdict(first) | {"seconds": _interval(first.seconds)}


def _interval(total: Total | None, least: float = 0.0) -> JsonObject:
    if total is None:
        return {"estimate": None, "low": None, "high": None}
    values = {"estimate": total.mean, "low": total.low, "high": total.high}
    return {name: round(max(value, least), 3) for name, value in values.items()}
