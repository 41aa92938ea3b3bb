"""Taking the jobs of a shard, exactly one incarnation each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.state import IncarnationState, Lane, ShardState
from ponder.jobs.incarnation import hold
from ponder.jobs.learn import learned
from ponder.jobs.wake import wake


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """`deltas` are all saved deltas of its tree in the order of their making."""

    job_id: int
    tenant_id: str
    batch_id: str
    request: dict[str, Any]
    deltas: list[dict[str, Any]]
    expires_at: datetime
    """When its batch expires."""
    deadline_at: datetime | None
    """From its own budget."""
    num_lost: int
    """How many incarnations died with it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`learned`: what settled jobs of the shard's batch have taught, see `learn`."""

    shard_id: int
    lane: Lane
    jobs: tuple[ClaimedJob, ...]
    learned: Mapping[str, float]


# A shard is of one batch: what all its jobs share is read once.
_SHARD = text("""
    SELECT state, holder, model, fingerprint, lane, job_ids, runs_alone,
           (SELECT expires_at FROM batches WHERE batches.id = shards.batch_id) AS expires_at, batch_id
    FROM shards WHERE id = :id FOR NO KEY UPDATE
""")

# Of what the incarnation holds already.
_COMPANY = text("""
    SELECT count(*) AS num_shards, coalesce(bool_or(runs_alone), false) AS has_suspect
    FROM shards WHERE holder = :holder AND state = 'held'
""")

_LOOK = text("""
    SELECT estimated_tokens, runs_alone FROM shards
    WHERE id = :id AND fingerprint = :fingerprint AND (state = 'queued' OR (state = 'held' AND holder = :holder))
""")

_KEEP = text("UPDATE shards SET published_at = clock_timestamp() WHERE id = :id AND state = 'queued' RETURNING id")

_HAND_BACK = text("UPDATE shards SET published_at = NULL WHERE id = :id")

_HELD = text("UPDATE shards SET state = 'held', holder = :holder, held_at = clock_timestamp() WHERE id = :id")

_FINISHED = text("UPDATE shards SET state = 'finished', finished_at = clock_timestamp() WHERE id = :id")

# The jobs first, by id, then their state: see _CUT. None of a batch that was cancelled or has expired. Limits beyond
# what the types hold are none.
_ATTEMPT = text("""
    WITH named AS MATERIALIZED (
        SELECT id, tenant_id, batch_id, request, created_at, state,
               CAST(request -> 'budget' ->> 'deadline_s' AS float8) AS deadline_s,
               CAST(request -> 'budget' ->> 'dollars' AS float8) AS dollars
        FROM jobs WHERE id = ANY(CAST(:ids AS bigint[]))
          AND EXISTS (SELECT FROM batches WHERE id = :batch_id AND state = 'in_progress')
    ), pending AS MATERIALIZED (
        SELECT *, CASE WHEN deadline_s < 1e9 THEN created_at + deadline_s * interval '1 second' END AS deadline_at,
               CASE WHEN dollars < 9e9 THEN CAST(dollars * 1e9 AS bigint) END AS limit_nanodollars
        FROM named WHERE state = 'pending'
    ), opened AS (
        INSERT INTO attempts (tenant_id, job_id, shard_id, incarnation_id, deadline_at, limit_nanodollars)
        SELECT tenant_id, id, :shard_id, :incarnation_id, deadline_at, limit_nanodollars FROM pending
        WHERE CAST(:is_new AS boolean) ORDER BY id
    )
    SELECT id AS job_id, tenant_id, batch_id, request, deadline_at,
           (SELECT count(*) FROM attempts WHERE job_id = pending.id AND outcome = 'lost') AS num_lost
    FROM pending ORDER BY id
""")

_DELTAS = text("""
    SELECT job_id, delta FROM tree_deltas WHERE job_id = ANY(CAST(:ids AS bigint[])) ORDER BY job_id, id
""")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a message is about. `runs_alone`: it may be had by a worker that holds nothing else."""

    estimated_tokens: int
    runs_alone: bool


def look(connection: Connection, shard_id: int, incarnation_id: str, *, fingerprint: str) -> Offer | None:
    """None: nothing to do here. A shard that the incarnation holds was claimed by a commit that was not answered."""
    values = {"id": shard_id, "holder": incarnation_id, "fingerprint": fingerprint}
    row = connection.execute(_LOOK, values).one_or_none()
    return None if row is None else Offer(*row)


def keep(connection: Connection, shard_id: int) -> bool:
    """Says that its message is kept and only waits, so that it is not taken for lost. Whether it is still queued."""
    return connection.execute(_KEEP, {"id": shard_id}).first() is not None


def claim(connection: Connection, shard_id: int, incarnation_id: str) -> Claim | None:
    """Makes the incarnation the holder of a queued shard and opens an attempt for each of its pending jobs.

    None when there is nothing to do: a duplicate message, a shard that is gone or has no pending job left, or one that
    this incarnation may not have (other weights, it is not ready, or this or what it holds runs alone; such a shard is
    published again at once).
    What this incarnation holds already it is given again: the answer to the first claim's commit may have been lost.
    Raises LeaseLost.
    """
    incarnation = hold(connection, incarnation_id)
    shard = connection.execute(_SHARD, {"id": shard_id}).one_or_none()
    if shard is not None and shard.state == ShardState.HELD and shard.holder == incarnation_id:
        jobs = _open_attempts(connection, shard_id, incarnation_id, shard, is_new=False)
        return Claim(shard_id, Lane(shard.lane), jobs, _learned(connection, shard))
    if shard is None or shard.state != ShardState.QUEUED:
        return None
    fits = (shard.model, shard.fingerprint) == (incarnation.model, incarnation.fingerprint)
    company = connection.execute(_COMPANY, {"holder": incarnation_id}).one()
    is_alone = not company.has_suspect and (company.num_shards == 0 or not shard.runs_alone)
    if not fits or not is_alone or incarnation.state is not IncarnationState.READY:
        connection.execute(_HAND_BACK, {"id": shard_id})
        wake(connection)
        return None
    jobs = _open_attempts(connection, shard_id, incarnation_id, shard, is_new=True)
    if not jobs:
        connection.execute(_FINISHED, {"id": shard_id})
        wake(connection)
        return None
    connection.execute(_HELD, {"id": shard_id, "holder": incarnation_id})
    return Claim(shard_id, Lane(shard.lane), jobs, _learned(connection, shard))


def _learned(connection: Connection, shard: Row[Any]) -> Mapping[str, float]:
    return learned(connection, [shard.batch_id]).get(shard.batch_id, {})


def _open_attempts(
    connection: Connection, shard_id: int, incarnation_id: str, shard: Row[Any], *, is_new: bool
) -> tuple[ClaimedJob, ...]:
    values = {"ids": shard.job_ids, "shard_id": shard_id, "batch_id": shard.batch_id}
    values |= {"incarnation_id": incarnation_id, "is_new": is_new}
    rows = connection.execute(_ATTEMPT, values).all()
    deltas: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for job_id, delta in connection.execute(_DELTAS, {"ids": [row.job_id for row in rows]}):
        deltas[job_id].append(delta)
    return tuple(ClaimedJob(**row._mapping, expires_at=shard.expires_at, deltas=deltas[row.job_id]) for row in rows)
