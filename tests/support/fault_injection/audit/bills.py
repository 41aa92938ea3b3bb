"""Every bill once more, from incarnations and prices alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

_JOBS_KINDS = ("work", "recomputed", "speculated", "cancelled", "duplicate")
_OVERHEAD = ("idle", "loading", "draining", "lost")

_INCARNATIONS = text("""
    SELECT id, state, started_at, billed_until, ended_at, nanodollars_per_hour, (
        SELECT price_book.nanodollars_per_hour FROM price_book
        WHERE price_book.machine = incarnations.machine AND price_book.market = incarnations.market
          AND valid_from <= started_at ORDER BY valid_from DESC LIMIT 1
    ) AS price
    FROM incarnations ORDER BY started_at
""")
# By stretch of time: what was booked for it together must be what the clock says.
_BOOKED = text("""
    SELECT incarnation_id, from_at, until_at, CAST(sum(nanodollars) AS bigint) AS nanodollars
    FROM ledger_entries GROUP BY incarnation_id, from_at, until_at ORDER BY incarnation_id, from_at, until_at
""")
_FOREIGN = text("""
    SELECT ledger_entries.id FROM ledger_entries LEFT JOIN jobs ON jobs.id = job_id
    WHERE nanodollars <= 0
       OR (kind = ANY(:of_jobs) AND (jobs.id IS NULL OR jobs.tenant_id <> ledger_entries.tenant_id
                                     OR jobs.batch_id <> ledger_entries.batch_id))
       OR (kind = ANY(:overhead) AND (job_id IS NOT NULL OR ledger_entries.tenant_id IS NOT NULL))
       OR NOT (kind = ANY(:of_jobs) OR kind = ANY(:overhead))
""")
_HELD = text("""
    SELECT DISTINCT incarnation_id, job_id FROM ledger_entries WHERE job_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM attempts WHERE attempts.job_id = ledger_entries.job_id
           AND attempts.incarnation_id = ledger_entries.incarnation_id)
""")


def wrong_bills(connection: Connection) -> Iterator[str]:
    """One sentence for each incarnation or entry that does not add up."""
    booked: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_BOOKED):
        booked[row.incarnation_id].append(row)
    for one in connection.execute(_INCARNATIONS):
        if one.price != one.nanodollars_per_hour:
            yield f"{one.id} costs {one.nanodollars_per_hour} an hour, by the price book {one.price}"
        if one.state != "ended" or one.ended_at != one.billed_until:
            yield f"{one.id} is {one.state} and billed until {one.billed_until}, its end was {one.ended_at}"
        yield from _wrong_stretches(one, booked[one.id])
    kinds = {"of_jobs": list(_JOBS_KINDS), "overhead": list(_OVERHEAD)}
    for entry in connection.execute(_FOREIGN, kinds):
        yield f"entry {entry.id} names what it cannot be for"
    for entry in connection.execute(_HELD):
        yield f"{entry.incarnation_id} billed job {entry.job_id}, which it never held"


def _wrong_stretches(one: Row[Any], stretches: Sequence[Row[Any]]) -> Iterator[str]:
    """They follow each other from start to end, each with its exact price; time that costs nothing may be missing."""
    at = one.started_at
    for stretch in stretches:
        if stretch.from_at < at:
            yield f"{one.id} is billed twice for the time from {stretch.from_at} to {at}"
        if missing := _price(one, at, stretch.from_at):
            yield f"{one.id} is billed {missing} too little for the time from {at} to {stretch.from_at}"
        if stretch.nanodollars != (wanted := _price(one, stretch.from_at, stretch.until_at)):
            yield f"{one.id} is billed {stretch.nanodollars}, not {wanted}, for {stretch.from_at} to {stretch.until_at}"
        at = max(at, stretch.until_at)
    if missing := _price(one, at, one.billed_until):
        yield f"{one.id} is billed {missing} too little for its end from {at} on"


def _price(one: Row[Any], since: datetime, until: datetime) -> int:
    """The price of a stretch, counted from the start and rounded down at both of its ends."""
    hour = timedelta(hours=1) // timedelta(microseconds=1)

    def up_to(at: datetime) -> int:
        return int((at - one.started_at) // timedelta(microseconds=1) * one.nanodollars_per_hour // hour)

    return up_to(until) - up_to(since)
