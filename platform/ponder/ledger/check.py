"""Checks that the ledger balances."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain import money
from ponder.errors import LedgerImbalance, NotFound

# One statement, so that both sides are from the same moment.
_BOTH_SIDES = text("""
    SELECT started_at, billed_until, nanodollars_per_hour,
           (SELECT CAST(coalesce(sum(nanodollars), 0) AS bigint) FROM ledger_entries
            WHERE incarnation_id = incarnations.id) AS booked
    FROM incarnations WHERE id = :id
""")


def check(connection: Connection, incarnation_id: str) -> int:
    """Checks that an incarnation's entries equal its bill to the nano-dollar. Returns it, or raises LedgerImbalance."""
    row = connection.execute(_BOTH_SIDES, {"id": incarnation_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no incarnation {incarnation_id}")
    bill = money.bill(row.started_at, row.billed_until, row.nanodollars_per_hour)
    if row.booked != bill:
        raise LedgerImbalance(f"{incarnation_id}: the entries add up to {row.booked} nano-dollars, the bill is {bill}")
    return bill
