"""Books a worker's time to those who caused it, and checks that none is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from ponder.domain import money
from ponder.domain.cost import CostKind
from ponder.domain.incarnation import Incarnation
from ponder.errors import LedgerImbalance, NotFound
from ponder.store.document import dumps


@dataclass(frozen=True, slots=True)
class Bearer:
    """The job that bears an entry, with everything the entry names."""

    job_id: int
    tenant_id: str
    batch_id: str
    kind: CostKind


@dataclass(frozen=True, slots=True)
class Charge:
    """The work that one bearer caused, in a unit that all charges of a booking share."""

    bearer: Bearer
    weight: float


# Entries, their sums by batch, by hour and by kind, and `billed_until` are written together or not at all.
_BOOK = text("""
    WITH entry AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:entries AS json))
          AS entry(tenant_id text, batch_id text, job_id bigint, kind text, nanodollars bigint)
    ), booked AS (
        INSERT INTO ledger_entries (incarnation_id, tenant_id, batch_id, job_id, kind, nanodollars, from_at, until_at)
        SELECT :id, tenant_id, batch_id, job_id, kind, nanodollars,
               CAST(:from_at AS timestamptz), CAST(:until_at AS timestamptz)
        FROM entry
    ), tallied AS (
        INSERT INTO tallies (batch_id, direct_nanodollars)
        SELECT batch_id, sum(nanodollars) FROM entry WHERE batch_id IS NOT NULL GROUP BY batch_id
    ), hours AS (
        INSERT INTO hour_tallies (worker, hour, direct_nanodollars, overhead_nanodollars)
        SELECT worker, date_trunc('hour', CAST(:until_at AS timestamptz), 'UTC'),
               coalesce(sum(nanodollars) FILTER (WHERE job_id IS NOT NULL), 0),
               coalesce(sum(nanodollars) FILTER (WHERE job_id IS NULL), 0)
        FROM entry JOIN incarnations ON incarnations.id = :id GROUP BY worker
    ), counted AS (
        INSERT INTO counter_tallies (counter, label, amount)
        SELECT 'spent', kind, sum(nanodollars) FROM entry GROUP BY kind
    )
    UPDATE incarnations SET billed_until = CAST(:until_at AS timestamptz) WHERE id = :id
""")

# One statement, so that both sides are from the same moment.
_BOTH_SIDES = text("""
    SELECT started_at, billed_until, nanodollars_per_hour,
           (SELECT CAST(coalesce(sum(nanodollars), 0) AS bigint) FROM ledger_entries
            WHERE incarnation_id = incarnations.id) AS booked
    FROM incarnations WHERE id = :id
""")


def book(
    connection: Connection,
    incarnation: Incarnation,
    until: datetime,
    *,
    overhead: CostKind,
    charges: Iterable[Charge] = (),
    idle_fraction: float = 0.0,
) -> dict[Bearer, int]:
    """Books the time from `billed_until` to `until` and moves `billed_until` there.

    The idle part is `overhead`, or all of it if there was no work. The rest is divided by weight. The caller holds the
    lock on the incarnation. If the clock was set back, nothing is booked. Returns the nano-dollars of each bearer.
    """
    until = max(until, incarnation.billed_until)
    started_at, price = incarnation.started_at, incarnation.nanodollars_per_hour
    amount = money.bill(started_at, until, price) - money.bill(started_at, incarnation.billed_until, price)
    shares = _divide(amount, overhead, charges, idle_fraction)
    entries = [_entry(bearer, nanodollars) for bearer, nanodollars in shares.items() if nanodollars]
    assert sum(entry["nanodollars"] for entry in entries) == amount, "entries differ from the bill"
    connection.execute(
        _BOOK,
        {"id": incarnation.id, "from_at": incarnation.billed_until, "until_at": until, "entries": dumps(entries)},
    )
    return {bearer: nanodollars for bearer, nanodollars in shares.items() if isinstance(bearer, Bearer)}


def check(connection: Connection, incarnation_id: str) -> int:
    """Checks that an incarnation's entries equal its bill to the nano-dollar. Returns it, or raises LedgerImbalance."""
    row = connection.execute(_BOTH_SIDES, {"id": incarnation_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no incarnation {incarnation_id}")
    bill = money.bill(row.started_at, row.billed_until, row.nanodollars_per_hour)
    if row.booked != bill:
        raise LedgerImbalance(f"{incarnation_id}: the entries add up to {row.booked} nano-dollars, the bill is {bill}")
    return bill


def _divide(
    amount: int, overhead: CostKind, charges: Iterable[Charge], idle_fraction: float
) -> dict[Bearer | CostKind, int]:
    weights: dict[Bearer | CostKind, float] = defaultdict(float)
    for charge in charges:
        if charge.weight > 0:
            weights[charge.bearer] += charge.weight
    if not weights:
        return {overhead: amount}
    worked = money.share(amount, {True: 1 - idle_fraction, False: idle_fraction})[True]
    return {overhead: amount - worked, **money.share(worked, weights)}


def _entry(bearer: Bearer | CostKind, nanodollars: int) -> dict[str, Any]:
    if isinstance(bearer, CostKind):
        return {"kind": bearer.value, "nanodollars": nanodollars}
    return {
        "tenant_id": bearer.tenant_id,
        "batch_id": bearer.batch_id,
        "job_id": bearer.job_id,
        "kind": bearer.kind.value,
        "nanodollars": nanodollars,
    }
