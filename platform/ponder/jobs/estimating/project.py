"""Projects what a batch in progress will have spent in the end, when that will be, and whether its dollars suffice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from ponder.domain.forecast.total import COVERAGE, Total
from ponder.domain.storable import JsonObject
from ponder.jobs.estimating.predict import Prediction, predict_batch
from ponder.jobs.tally import Totals

_HOUR_S = 3_600
_PACE = 0.15**2
"""The relative variance of the pace: workers pause between steps, and what they share changes."""

_RUNNING = text("""
    SELECT count(*) FILTER (WHERE batch_id = :batch_id) AS own, count(*) AS all
    FROM shards JOIN attempts ON attempts.shard_id = shards.id AND attempts.ended_at IS NULL
    WHERE state = 'held' AND fingerprint = ANY(CAST(:fingerprints AS text[]))
""")


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a batch in progress, from its row and its totals."""

    batch_id: str
    tenant_id: str
    num_lines: int
    limit_nanodollars: int | None
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
    share = _share(connection, progress.batch_id, sorted(left.survey.fingerprints))
    total, seconds = _total(found, progress.totals), _seconds(found, share)
    ground = found.unknown or (f"{left.num_own:,} settled jobs of this batch" if left.num_own else "earlier jobs")
    pace = found.unknown or _pace(found.num_workers, share)
    return {
        "coverage": COVERAGE,
        "spent_nanodollars": progress.totals.direct_nanodollars,
        "total_nanodollars": _interval(total, progress.totals.direct_nanodollars) | {"rests_on": ground},
        "seconds_left": _interval(seconds) | {"rests_on": pace},
        "budget": _budget(found, progress, total, share),
    }


def _share(connection: Connection, batch_id: str, fingerprints: list[str]) -> float:
    """Returns the batch's share of the running jobs of its models, and 1 while none of its own runs."""
    row = connection.execute(_RUNNING, {"batch_id": batch_id, "fingerprints": fingerprints}).one()
    return float(row.own / row.all) if row.own else 1.0


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


def _budget(found: Prediction, progress: Progress, total: Total | None, share: float) -> JsonObject | None:
    """Says whether the batch's dollars run out before it ends, and if they may, in how many seconds."""
    limit = progress.limit_nanodollars
    if limit is None or total is None:
        return None
    runs_out: Literal["no", "maybe", "yes"] = "no" if total.high <= limit else "yes" if total.low > limit else "maybe"
    rate = share * sum(fleet.num_workers * fleet.nanodollars_per_hour for fleet in found.fleets) / _HOUR_S
    seconds = None
    if runs_out != "no" and rate > 0:
        left = max(limit - progress.totals.direct_nanodollars, 0)
        seconds = Total(left / rate, _PACE * (left / rate) ** 2)
    return {"limit_nanodollars": limit, "runs_out": runs_out, "seconds": _interval(seconds)}


def _interval(total: Total | None, least: float = 0.0) -> JsonObject:
    if total is None:
        return {"estimate": None, "low": None, "high": None}
    values = {"estimate": total.mean, "low": total.low, "high": total.high}
    return {name: round(max(value, least), 3) for name, value in values.items()}
