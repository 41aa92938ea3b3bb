"""Counts what each batch spent, in its tallies, and says what its budget and those of its key and tenant allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.budget import Allowance, BudgetName, Limit, Spending
from ponder.store.document import dumps


@dataclass(frozen=True, slots=True)
class Draw:
    """The use of one job since the last tick."""

    tokens: int = 0
    nanodollars: int = 0


@dataclass(slots=True)
class Spent:
    """The spending of a batch in a tick that settlements and bookings do not count."""

    generated_tokens: int = 0
    settled_nanodollars: int = 0


# Appended: if workers updated a shared sum, one frozen in its transaction would stop all others.
_SPEND = text("""
    INSERT INTO tallies (batch_id, generated_tokens, settled_nanodollars)
    SELECT batch_id, generated_tokens, settled_nanodollars
    FROM json_to_recordset(CAST(:spent AS json))
      AS spent(batch_id text, generated_tokens bigint, settled_nanodollars bigint)
    ORDER BY batch_id
""")

# Nobody else writes the attempts of an incarnation while it holds its own row.
_DRAW = text("""
    UPDATE attempts SET reserved_tokens = greatest(reserved_tokens - draw.tokens, 0),
                        reserved_nanodollars = greatest(reserved_nanodollars - draw.nanodollars, 0)
    FROM json_to_recordset(CAST(:draws AS json)) AS draw(job_id bigint, tokens bigint, nanodollars bigint)
    WHERE incarnation_id = :incarnation_id AND ended_at IS NULL AND attempts.job_id = draw.job_id
      AND (reserved_tokens IS NOT NULL OR reserved_nanodollars IS NOT NULL)
""")

IS_LIMITED = """
    (paused_at IS NOT NULL OR limit_tokens IS NOT NULL OR limit_nanodollars IS NOT NULL
     OR EXISTS (SELECT FROM budgets AS renewing WHERE renewing.tenant_id = batches.tenant_id
                AND (renewing.key_id IS NULL OR renewing.key_id = batches.key_id)))
"""
"""Whether a row of `batches` is paused or draws on any budget."""

_SPENT = """
    CAST(sum(generated_tokens) AS bigint) AS tokens, CAST(sum(direct_nanodollars) AS bigint) AS nanodollars,
    CAST(sum(num_completed + num_failed) AS bigint) AS num_settled,
    CAST(sum(settled_nanodollars) AS bigint) AS settled_nanodollars
"""
_ADDED = "generated_tokens, direct_nanodollars, num_completed, num_failed, settled_nanodollars"
_HELD = """
    CAST(sum(reserved_tokens) AS bigint) AS reserved_tokens,
    CAST(sum(reserved_nanodollars) AS bigint) AS reserved_nanodollars,
    count(*) AS num_running, count(*) FILTER (WHERE reserved_tokens IS NULL) AS num_unreserved
"""
_NONE_IS_ZERO = ", ".join(
    f"coalesce({name}, 0) AS {name}"
    for name in (
        *("tokens", "nanodollars", "num_settled", "settled_nanodollars"),
        *("reserved_tokens", "reserved_nanodollars", "num_unreserved"),
    )
)

# One pass over the jobs that run, however many batches and budgets there are.
_BATCHES = text(f"""
    WITH chosen AS MATERIALIZED (
        SELECT * FROM batches WHERE id = ANY(CAST(:batch_ids AS text[])) AND {IS_LIMITED}
    ), spent AS (
        SELECT batch_id, {_SPENT} FROM (
            SELECT batch_id, {_ADDED} FROM batch_totals WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
            UNION ALL
            SELECT batch_id, {_ADDED} FROM tallies WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
        ) AS each GROUP BY batch_id
    ), held AS (
        SELECT shards.batch_id, {_HELD} FROM attempts JOIN shards ON shards.id = shard_id
        WHERE ended_at IS NULL AND shards.state = 'held' AND shards.batch_id = ANY(CAST(:batch_ids AS text[]))
        GROUP BY shards.batch_id
    )
    SELECT chosen.id, tenant_id, key_id, num_lines, paused_at IS NOT NULL AS is_paused, limit_tokens, limit_nanodollars,
           {_NONE_IS_ZERO}, coalesce(num_running, 0) AS num_running
    FROM chosen LEFT JOIN spent ON spent.batch_id = chosen.id LEFT JOIN held ON held.batch_id = chosen.id
""")

# What is spent and what is reserved are of one moment: a tick moves from one to the other.
_RENEWING = text(f"""
    WITH clock AS MATERIALIZED (
        SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now
    ), wanted AS MATERIALIZED (
        SELECT budgets.*, date_trunc(period, now) AS since FROM budgets CROSS JOIN clock
        WHERE tenant_id = ANY(CAST(:tenant_ids AS text[]))
    ), spent AS MATERIALIZED (
        SELECT tenant_id, key_id, day, {_ADDED} FROM day_totals
        WHERE tenant_id IN (SELECT tenant_id FROM wanted) AND day >= (SELECT min(since) FROM wanted)
        UNION ALL
        SELECT tenant_id, key_id, day, {_ADDED} FROM tallies JOIN batches ON batches.id = batch_id
        WHERE tenant_id IN (SELECT tenant_id FROM wanted)
    ), held AS MATERIALIZED (
        SELECT running.*, key_id
        FROM (
            SELECT tenant_id, shard_id, {_HELD} FROM attempts
            WHERE ended_at IS NULL AND tenant_id = ANY(CAST(:tenant_ids AS text[])) GROUP BY tenant_id, shard_id
        ) AS running JOIN shards ON shards.id = shard_id JOIN batches ON batches.id = shards.batch_id
    )
    SELECT wanted.tenant_id, wanted.key_id, period, limit_tokens, limit_nanodollars,
           (since + CAST('1 ' || period AS interval)) AT TIME ZONE 'UTC' AS renews_at, {_NONE_IS_ZERO}
    FROM wanted CROSS JOIN LATERAL (
        SELECT {_SPENT} FROM spent
        WHERE day >= since AND tenant_id = wanted.tenant_id AND (wanted.key_id IS NULL OR key_id = wanted.key_id)
    ) AS spending CROSS JOIN LATERAL (
        SELECT CAST(sum(reserved_tokens) AS bigint) AS reserved_tokens,
               CAST(sum(reserved_nanodollars) AS bigint) AS reserved_nanodollars,
               CAST(sum(num_unreserved) AS bigint) AS num_unreserved
        FROM held WHERE tenant_id = wanted.tenant_id AND (wanted.key_id IS NULL OR key_id = wanted.key_id)
    ) AS holding
    ORDER BY wanted.key_id NULLS LAST, period
""")

_LIMITED = text(f"SELECT id FROM batches WHERE state = 'in_progress' AND {IS_LIMITED}")


@dataclass(frozen=True, slots=True)
class Renewing:
    """A budget of a tenant, or with `key_id` of a key, in this day or month."""

    tenant_id: str
    key_id: str | None
    limit: Limit

    def limits(self, tenant_id: str, key_id: str | None) -> bool:
        """Returns whether batches of this tenant and key draw on it."""
        return self.tenant_id == tenant_id and self.key_id in (None, key_id)


def spend(connection: Connection, incarnation_id: str, spent: Mapping[str, Spent], draws: Mapping[int, Draw]) -> None:
    """Adds what a tick spent, by batch, and draws on what was reserved, by job. Waits for no other worker."""
    if spent:
        rows = [{"batch_id": batch_id} | asdict(one) for batch_id, one in spent.items()]
        connection.execute(_SPEND, {"spent": dumps(rows)})
    if draws:
        drawn = [{"job_id": job_id} | asdict(draw) for job_id, draw in draws.items()]
        connection.execute(_DRAW, {"incarnation_id": incarnation_id, "draws": dumps(drawn)})


def allowances(connection: Connection, batch_ids: Collection[str]) -> dict[str, Allowance]:
    """Returns what batches may still spend, without those that draw on no budget and are not paused."""
    if not batch_ids:
        return {}
    rows = connection.execute(_BATCHES, {"batch_ids": sorted(batch_ids)}).all()
    budgets = renewing(connection, {row.tenant_id for row in rows})
    return {
        row.id: Allowance(
            num_lines=row.num_lines,
            is_paused=row.is_paused,
            num_running=row.num_running,
            spent=_spent(row),
            limits=tuple(
                [_limit(row, BudgetName.BATCH, row.id)]
                if row.limit_tokens is not None or row.limit_nanodollars is not None
                else []
            )
            + tuple(budget.limit for budget in budgets if budget.limits(row.tenant_id, row.key_id)),
        )
        for row in rows
    }


def open_allowances(connection: Connection) -> dict[str, Allowance]:
    """Returns the allowances of all batches in progress that draw on a budget or are paused."""
    return allowances(connection, connection.execute(_LIMITED).scalars().all())


def renewing(connection: Connection, tenant_ids: Collection[str]) -> list[Renewing]:
    """Returns the budgets of tenants and of their keys, with what is spent of them since they last renewed."""
    rows = connection.execute(_RENEWING, {"tenant_ids": sorted(tenant_ids)}) if tenant_ids else ()
    return [
        Renewing(
            row.tenant_id,
            row.key_id,
            _limit(
                row,
                BudgetName(f"{'key' if row.key_id else 'tenant'}_{row.period}"),
                row.key_id or row.tenant_id,
                row.renews_at,
            ),
        )
        for row in rows
    ]


def _limit(row: Row[Any], budget: BudgetName, owner_id: str, renews_at: datetime | None = None) -> Limit:
    return Limit(
        budget,
        owner_id,
        tokens=row.limit_tokens,
        nanodollars=row.limit_nanodollars,
        spent=_spent(row),
        reserved_tokens=row.reserved_tokens,
        reserved_nanodollars=row.reserved_nanodollars,
        num_unreserved=row.num_unreserved,
        renews_at=renews_at,
    )


def _spent(row: Row[Any]) -> Spending:
    return Spending(row.tokens, row.nanodollars, row.num_settled, row.settled_nanodollars)
