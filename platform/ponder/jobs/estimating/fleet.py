"""The workers of a model and their prices, from which tokens get their time and money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from ponder.domain.forecast.experience import Experience
from ponder.domain.forecast.ratio import Estimate, Ratio
from ponder.errors import UnknownMachine
from ponder.ledger.cost_totals import hours_among
from ponder.ledger.price_book import price_at

_LOADING = Estimate(1.25, 0.04, 0.1)
"""Loaded cost for each direct dollar, as long as no hour of the model's workers is known."""

_LIVE = text("""
    SELECT machine, market, count(*) AS num_workers, CAST(avg(nanodollars_per_hour) AS float8) AS price
    FROM incarnations WHERE state = 'ready' AND lease_until > clock_timestamp() AND fingerprint = :fingerprint
    GROUP BY machine, market ORDER BY count(*) DESC, machine, market
""")
_LAST = text("""
    SELECT market, nanodollars_per_hour AS price FROM incarnations
    WHERE fingerprint = :fingerprint AND machine = :machine ORDER BY started_at DESC LIMIT 1
""")

# Overhead is spread over the jobs that the same worker served in the same hour, as reports do. Of a worker that served
# other models in the same hour, the whole hour counts.
_HOURS = text(f"""
    WITH up AS (
        SELECT DISTINCT worker, hour FROM incarnations CROSS JOIN LATERAL generate_series(
            date_trunc('hour', greatest(started_at, clock_timestamp() - interval '23 hours'), 'UTC'), billed_until,
            interval '1 hour'
        ) AS hour
        WHERE fingerprint = ANY(CAST(:fingerprints AS text[]))
          AND billed_until > clock_timestamp() - interval '24 hours'
    )
    SELECT CAST(sum(direct) AS float8) AS x, CAST(sum(loaded) AS float8) AS y, count(*) AS n,
           CAST(sum(direct * direct) AS float8) AS xx, CAST(sum(direct * loaded) AS float8) AS xy,
           CAST(sum(loaded * loaded) AS float8) AS yy
    FROM (
        SELECT direct_nanodollars AS direct, direct_nanodollars + overhead_nanodollars AS loaded
        FROM ({hours_among("up")}) AS hours WHERE direct_nanodollars > 0
    ) AS served
""")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The machine that a model's jobs will run on, its price, and the live workers of the model.

    source: where the price comes from. unknown: the reason why no time can be told, or None.
    """

    machine: str | None
    market: str | None
    nanodollars_per_hour: float
    num_workers: int
    source: str
    unknown: str | None = None


def fleet_of(connection: Connection, fingerprint: str, experience: Experience) -> Fleet:
    """Returns the machine of most live workers if jobs were timed on it, or else the one that most were timed on."""
    live = connection.execute(_LIVE, {"fingerprint": fingerprint}).all()
    timed = experience.machines(fingerprint)
    num_workers = sum(row.num_workers for row in live)
    for row in live:
        if row.machine in timed:
            return Fleet(row.machine, row.market, row.price, num_workers, "live workers")
    if not timed:
        return Fleet(None, None, 0.0, num_workers, "", "no job of this model has settled yet: run some first")
    if live:
        reason = f"no job of this model has settled on {live[0].machine} yet: run some first"
        return Fleet(live[0].machine, live[0].market, live[0].price, num_workers, "live workers", reason)
    last = connection.execute(_LAST, {"fingerprint": fingerprint, "machine": timed[0]}).one()
    try:
        price = price_at(connection, timed[0], last.market).nanodollars_per_hour
    except UnknownMachine:
        return Fleet(timed[0], last.market, last.price, 0, "the last worker")
    return Fleet(timed[0], last.market, price, 0, "the price book")


def loading_of(connection: Connection, fingerprints: Sequence[str]) -> Estimate:
    """Returns the loaded cost for each direct dollar of models' workers, by their hours of the last day."""
    row = connection.execute(_HOURS, {"fingerprints": list(fingerprints)}).one()
    if not row.n:
        return _LOADING
    return Ratio(row.n, row.x, row.y, row.xx, row.xy, row.yy).estimate(_LOADING)
