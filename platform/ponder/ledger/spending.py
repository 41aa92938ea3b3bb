"""Counts what each batch spent, in its tallies, and says what its budget still allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, text

from ponder.domain.budget import Allowance, Spending
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

_SUMS = """
    CAST(coalesce(sum(generated_tokens), 0) AS bigint) AS tokens,
    CAST(coalesce(sum(direct_nanodollars), 0) AS bigint) AS nanodollars,
    CAST(coalesce(sum(num_completed + num_failed), 0) AS bigint) AS num_settled,
    CAST(coalesce(sum(settled_nanodollars), 0) AS bigint) AS settled_nanodollars
"""
_ADDED = "generated_tokens, direct_nanodollars, num_completed, num_failed, settled_nanodollars"

_ALLOWANCES = text(f"""
    SELECT batches.id, num_lines, paused_at IS NOT NULL AS is_paused, limit_tokens, limit_nanodollars,
           spent.*, held.*
    FROM batches
    CROSS JOIN LATERAL (
        SELECT {_SUMS} FROM (
            SELECT {_ADDED} FROM batch_totals WHERE batch_id = batches.id
            UNION ALL
            SELECT {_ADDED} FROM tallies WHERE batch_id = batches.id
        ) AS each
    ) AS spent
    CROSS JOIN LATERAL (
        SELECT CAST(coalesce(sum(reserved_tokens), 0) AS bigint) AS reserved_tokens,
               CAST(coalesce(sum(reserved_nanodollars), 0) AS bigint) AS reserved_nanodollars,
               count(*) AS num_running, count(*) FILTER (WHERE reserved_tokens IS NULL) AS num_unreserved
        FROM attempts JOIN shards ON shards.id = attempts.shard_id
        WHERE attempts.ended_at IS NULL AND shards.batch_id = batches.id AND shards.state = 'held'
    ) AS held
    WHERE batches.id = ANY(CAST(:batch_ids AS text[]))
      AND (paused_at IS NOT NULL OR limit_tokens IS NOT NULL OR limit_nanodollars IS NOT NULL)
""")

_LIMITED = text("""
    SELECT id FROM batches
    WHERE state = 'in_progress'
      AND (paused_at IS NOT NULL OR limit_tokens IS NOT NULL OR limit_nanodollars IS NOT NULL)
""")


def spend(connection: Connection, incarnation_id: str, spent: Mapping[str, Spent], draws: Mapping[int, Draw]) -> None:
    """Adds what a tick spent, by batch, and draws on what was reserved, by job. Waits for no other worker."""
    if spent:
        rows = [{"batch_id": batch_id} | asdict(one) for batch_id, one in spent.items()]
        connection.execute(_SPEND, {"spent": dumps(rows)})
    if draws:
        drawn = [{"job_id": job_id} | asdict(draw) for job_id, draw in draws.items()]
        connection.execute(_DRAW, {"incarnation_id": incarnation_id, "draws": dumps(drawn)})


def allowances(connection: Connection, batch_ids: Collection[str]) -> dict[str, Allowance]:
    """Returns what batches may still spend, without those that have no budget and are not paused."""
    if not batch_ids:
        return {}
    return {
        row.id: Allowance(
            num_lines=row.num_lines,
            is_paused=row.is_paused,
            limit_tokens=row.limit_tokens,
            limit_nanodollars=row.limit_nanodollars,
            spent=Spending(row.tokens, row.nanodollars, row.num_settled, row.settled_nanodollars),
            reserved_tokens=row.reserved_tokens,
            reserved_nanodollars=row.reserved_nanodollars,
            num_running=row.num_running,
            num_unreserved=row.num_unreserved,
        )
        for row in connection.execute(_ALLOWANCES, {"batch_ids": sorted(batch_ids)})
    }


def open_allowances(connection: Connection) -> dict[str, Allowance]:
    """Returns the allowances of all batches in progress that have a budget or are paused."""
    return allowances(connection, connection.execute(_LIMITED).scalars().all())
