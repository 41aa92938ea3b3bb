"""Cuts the next shard from waiting jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from ponder.domain.budget import Allowance
from ponder.jobs.dispatching.order import SPAN, Source
from ponder.jobs.piloting.pilot import UNDECIDED
from ponder.jobs.shard import MAX_JOBS
from ponder.store.document import dumps

_MOST_RELEASED = 1_000
"""Shards of one tenant and queue that are looked at in one round."""


@dataclass(frozen=True, slots=True)
class Taken:
    shard_id: int
    estimated_tokens: int


# Not a join: without statistics, Postgres would compare each row with each budget.
_FITS = """
    batch_id <> ALL(CAST(:stopped AS text[]))
    AND coalesce(coalesce(least_tokens, 1) <= CAST(CAST(:rooms AS jsonb) ->> batch_id AS bigint), true)
"""
"""Whether the budgets of a row's batch have room for one of its jobs."""

# The order is that of `order.precedence`. What cannot go out must not take the place of what can: neither that of
# batches that may start no job, nor that of other tenants or queues.
_SOURCES = text(f"""
    WITH waiting AS (
        SELECT tenant_id, model, fingerprint, lane, id, batch_id FROM shards
        WHERE state = 'queued' AND published_at IS NULL AND {_FITS}
    ), released AS (
        SELECT waiting.tenant_id, model, fingerprint, waiting.lane, waiting.id AS shard_id, batch_id,
               {UNDECIDED} AS is_pilot, expires_at AS due_at, batches.created_at AS submitted_at
        FROM waiting JOIN batches ON batches.id = batch_id
    ), numbered AS (
        SELECT *, row_number() OVER (PARTITION BY tenant_id, model, fingerprint, lane
                                     ORDER BY NOT is_pilot, due_at, submitted_at, batch_id, shard_id) AS number
        FROM released
    ), uncut AS (
        SELECT portions.tenant_id, model, fingerprint, lane, batch_id,
               expires_at AS due_at, batches.created_at AS submitted_at
        FROM portions JOIN batches ON batches.id = portions.batch_id
        WHERE cut_until < last_line AND batches.state = 'in_progress' AND batches.expires_at > clock_timestamp()
          AND NOT {UNDECIDED} AND {_FITS}
    )
    SELECT tenant_id, model, fingerprint, lane, shard_id, batch_id, is_pilot, due_at, submitted_at
    FROM (
        SELECT tenant_id, model, fingerprint, lane, shard_id, batch_id, is_pilot, due_at, submitted_at
        FROM numbered WHERE number <= {_MOST_RELEASED}
        UNION ALL
        SELECT tenant_id, model, fingerprint, lane, NULL, batch_id, false, due_at, submitted_at FROM uncut
    ) AS source
    ORDER BY NOT is_pilot, due_at, submitted_at, batch_id, shard_id NULLS LAST
""")

_PUBLISH = text("""
    UPDATE shards SET published_at = clock_timestamp(), lane = :lane WHERE id = :shard_id AND state = 'queued'
    RETURNING id AS shard_id, estimated_tokens
""")

# Uncut jobs are pending, or their batch is just ending, which `claim` finds out. If this statement asked for the state,
# or set no upper bound for lines, Postgres would read all of a large batch each time until its first ANALYZE. The jobs
# of a pilot have their shards already.
_CUT = text(f"""
    WITH range AS MATERIALIZED (
        SELECT cut_until, least(cut_until + {SPAN}, last_line) AS until, least_tokens FROM portions
        WHERE batch_id = :batch_id AND model = :model AND fingerprint = :fingerprint
    ), waiting AS (
        SELECT id, line, estimated_tokens FROM jobs
        WHERE batch_id = :batch_id AND model = :model AND fingerprint = :fingerprint
          AND line > (SELECT cut_until FROM range) AND line <= (SELECT until FROM range)
          AND id NOT IN (SELECT unnest(job_ids) FROM pilots WHERE batch_id = :batch_id)
        ORDER BY line LIMIT {MAX_JOBS + 1}
    ), summed AS MATERIALIZED (
        SELECT *, sum(estimated_tokens) OVER (ORDER BY line) AS tokens, row_number() OVER (ORDER BY line) AS number
        FROM waiting
    ), taken AS MATERIALIZED (
        SELECT * FROM summed WHERE number = 1 OR (number <= {MAX_JOBS} AND tokens <= :shard_tokens)
    ), shard AS (
        INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens, least_tokens,
                            published_at)
        SELECT :tenant_id, :batch_id, :model, :fingerprint, :lane, array_agg(id ORDER BY line), max(tokens),
               (SELECT least_tokens FROM range), clock_timestamp()
        FROM taken HAVING count(*) > 0
        RETURNING id, estimated_tokens
    ), portion AS (
        UPDATE portions
        SET cut_until = CASE WHEN (SELECT count(*) FROM taken) < (SELECT count(*) FROM summed)
                             THEN (SELECT max(line) FROM taken) ELSE (SELECT until FROM range) END,
            uncut_tokens = uncut_tokens - coalesce((SELECT max(tokens) FROM taken), 0)
        WHERE batch_id = :batch_id AND model = :model AND fingerprint = :fingerprint
        RETURNING cut_until < last_line AS has_more
    )
    SELECT shard.id AS shard_id, shard.estimated_tokens, portion.has_more FROM portion LEFT JOIN shard ON true
""")

# The jobs of a pilot were cut apart from the others, beyond `cut_until`.
_RECOUNT = text("""
    UPDATE portions SET uncut_tokens = counted.tokens
    FROM portions AS uncut JOIN batches ON batches.id = uncut.batch_id CROSS JOIN LATERAL (
        SELECT coalesce(sum(estimated_tokens), 0) AS tokens FROM jobs
        WHERE jobs.batch_id = uncut.batch_id AND jobs.model = uncut.model
          AND jobs.fingerprint = uncut.fingerprint AND line > uncut.cut_until
          AND id NOT IN (SELECT unnest(job_ids) FROM pilots WHERE pilots.batch_id = uncut.batch_id)
    ) AS counted
    WHERE uncut.cut_until < uncut.last_line AND batches.state = 'in_progress' AND portions.batch_id = uncut.batch_id
      AND portions.model = uncut.model AND portions.fingerprint = uncut.fingerprint
      AND portions.uncut_tokens <> counted.tokens
""")


def recount(connection: Connection) -> None:
    """Adds up the estimated tokens of jobs that are in no shard yet, which cutting keeps up to date.

    A dispatcher that becomes active does this first: one of an older release, which knows of no such sums, may have
    validated and cut batches before it. Nothing else may cut meanwhile.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))  # it may have to read millions of jobs
    connection.execute(_RECOUNT)


def sources(connection: Connection, limited: Mapping[str, Allowance]) -> list[Source]:
    """Returns the sources of work, in the order in which each tenant's own work is done.

    Those of `limited` batches are left out if none of their jobs may start now.
    """
    values = {
        "stopped": [batch_id for batch_id, allowance in limited.items() if allowance.admits_none],
        "rooms": dumps({batch_id: allowance.room_tokens for batch_id, allowance in limited.items()}),
    }
    return [Source(**row._mapping) for row in connection.execute(_SOURCES, values)]


def cut(connection: Connection, waiting: deque[Source], shard_tokens: int, *, lane: str) -> Taken | None:
    """Cuts the next shard from the first source, or takes it whole if it was handed back. Removes an exhausted source.

    The shard is marked as published in a lane.

    Returns None if the source gave nothing this time. Only one transaction may do this at a time; `dispatch` holds a
    lock for that.
    """
    source = waiting.popleft()
    if source.shard_id is not None:
        row = connection.execute(_PUBLISH, {"shard_id": source.shard_id, "lane": lane}).one_or_none()
        return Taken(row.shard_id, row.estimated_tokens) if row is not None else None
    values = {"tenant_id": source.tenant_id, "batch_id": source.batch_id, "model": source.model}
    values |= {"fingerprint": source.fingerprint, "lane": lane}
    row = connection.execute(_CUT, {**values, "shard_tokens": shard_tokens}).one()
    if row.has_more:
        waiting.appendleft(source)
    return Taken(row.shard_id, row.estimated_tokens) if row.shard_id is not None else None
