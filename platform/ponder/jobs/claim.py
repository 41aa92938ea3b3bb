"""Claims a shard: each of its jobs goes to exactly one incarnation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.state import IncarnationState, Lane, ShardState
from ponder.domain.storable import JsonObject
from ponder.jobs.incarnation import hold
from ponder.jobs.learn import learned
from ponder.jobs.shard import finish_shard, hold_shard
from ponder.jobs.wake import wake


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job as its worker needs it. `deltas` are all saved deltas of its tree, oldest first."""

    job_id: int
    tenant_id: str
    batch_id: str
    request: JsonObject
    deltas: list[JsonObject]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed shard. `learned` sums up what settled jobs of its batch have taught (see `learn`)."""

    shard_id: int
    lane: Lane
    jobs: tuple[ClaimedJob, ...]
    learned: Mapping[str, float]


_SHARD = text("""
    SELECT state, holder, model, fingerprint, lane, job_ids, runs_alone, batch_id
    FROM shards WHERE id = :id FOR NO KEY UPDATE
""")

# What the incarnation already holds.
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

# First the jobs by id, then their state (see dispatching/cut.py). A batch that was cancelled or has expired gives none.
# A limit too large for its type is no limit.
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
    SELECT id AS job_id, tenant_id, batch_id, request FROM pending ORDER BY id
""")

_DELTAS = text("""
    SELECT job_id, delta FROM tree_deltas WHERE job_id = ANY(CAST(:ids AS bigint[])) ORDER BY job_id, id
""")


@dataclass(frozen=True, slots=True)
class Offer:
    """A shard that a message announces. If it `runs_alone`, only a worker that holds nothing else may claim it."""

    estimated_tokens: int
    runs_alone: bool


def look(connection: Connection, shard_id: int, incarnation_id: str, *, fingerprint: str) -> Offer | None:
    """Returns what a message offers, or None if there is nothing to do.

    A shard that this incarnation already holds is offered again: the answer to the claim's commit was lost.
    """
    values = {"id": shard_id, "holder": incarnation_id, "fingerprint": fingerprint}
    row = connection.execute(_LOOK, values).one_or_none()
    return None if row is None else Offer(*row)


def keep(connection: Connection, shard_id: int) -> bool:
    """Marks the shard's message as still waiting here, not lost. Returns whether the shard is still queued."""
    return connection.execute(_KEEP, {"id": shard_id}).first() is not None


def claim(connection: Connection, shard_id: int, incarnation_id: str) -> Claim | None:
    """Makes the incarnation the holder of a queued shard and opens an attempt for each of its pending jobs.

    Returns None when there is nothing to do: the message is a duplicate, the shard is gone or has no pending jobs, or
    this incarnation may not have it. It may not if its weights differ, if it is not ready, or if this shard or what it
    holds runs alone; such a shard is published again at once.
    A shard that this incarnation already holds is returned again, because the answer to the first claim's commit may
    have been lost. Raises LeaseLost.
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
        finish_shard(connection, shard_id)
        wake(connection)
        return None
    hold_shard(connection, shard_id, incarnation_id)
    return Claim(shard_id, Lane(shard.lane), jobs, _learned(connection, shard))


def _learned(connection: Connection, shard: Row[Any]) -> Mapping[str, float]:
    return learned(connection, [shard.batch_id]).get(shard.batch_id, {})


def _open_attempts(
    connection: Connection, shard_id: int, incarnation_id: str, shard: Row[Any], *, is_new: bool
) -> tuple[ClaimedJob, ...]:
    values = {"ids": shard.job_ids, "shard_id": shard_id, "batch_id": shard.batch_id}
    values |= {"incarnation_id": incarnation_id, "is_new": is_new}
    rows = connection.execute(_ATTEMPT, values).all()
    deltas: dict[int, list[JsonObject]] = defaultdict(list)
    for job_id, delta in connection.execute(_DELTAS, {"ids": [row.job_id for row in rows]}):
        deltas[job_id].append(delta)
    return tuple(ClaimedJob(**row._mapping, deltas=deltas[row.job_id]) for row in rows)
