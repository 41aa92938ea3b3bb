"""Claims a shard: each of its jobs goes to exactly one incarnation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.batch.stages import lesson_scope
from ponder.domain.state import Lane, ShardState
from ponder.domain.storable import JsonObject
from ponder.jobs.incarnation import Incarnation, hold
from ponder.jobs.learn import former, learned
from ponder.jobs.reserve import Reserve, Turn, Unfit, reserve, take_turn, walls
from ponder.jobs.shard import finish_shard, hold_shard
from ponder.jobs.wake import wake
from ponder.ledger.spending import IS_LIMITED
from ponder.store.document import dumps


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job as its worker needs it. `deltas` are all saved deltas of its tree, oldest first.

    `former_outcomes` are those of its former attempts, each once.
    """

    job_id: int
    tenant_id: str
    batch_id: str
    request: JsonObject
    deltas: list[JsonObject]
    lane: Lane
    created_at: datetime
    former_outcomes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed shard. `learned` sums up what settled jobs of its batch have taught, and `former` what ended batches of
    its tenant have (see `learn`).

    `now` is Postgres's time.
    """

    shard_id: int
    lane: Lane
    jobs: tuple[ClaimedJob, ...]
    learned: Mapping[str, float]
    former: Mapping[str, float] = field(compare=False)
    now: datetime = field(compare=False)


_SHARD = text(f"""
    SELECT state, holder, tenant_id, model, fingerprint, lane, job_ids, runs_alone, batch_id, least_tokens, created_at,
           (SELECT {IS_LIMITED} FROM batches WHERE batches.id = batch_id) AS is_limited
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

_HAND_BACK = text("""
    UPDATE shards SET published_at = NULL, least_tokens = CAST(:least_tokens AS bigint) WHERE id = :id
""")

_JUST_HANDED_BACK = text("""
    SELECT EXISTS (
        SELECT FROM attempts
        WHERE job_id = ANY(CAST(:ids AS bigint[])) AND incarnation_id = :incarnation_id
          AND outcome IN ('preempted', 'handed_on')
          AND ended_at >= CAST(:last_tick AS timestamptz)
    )
""")

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
        INSERT INTO attempts (tenant_id, job_id, shard_id, incarnation_id, deadline_at, limit_nanodollars,
                              reserved_tokens, reserved_nanodollars)
        SELECT tenant_id, id, :shard_id, :incarnation_id, deadline_at, limit_nanodollars, tokens, nanodollars
        FROM pending LEFT JOIN json_to_recordset(CAST(:reserves AS json)) AS reserve(
            job_id bigint, tokens bigint, nanodollars bigint) ON reserve.job_id = pending.id
        WHERE CAST(:is_new AS boolean) ORDER BY id
    )
    SELECT id AS job_id, tenant_id, batch_id, request, created_at,
           (SELECT array_agg(DISTINCT outcome) FROM attempts
            WHERE attempts.job_id = pending.id AND ended_at IS NOT NULL) AS former_outcomes
    FROM pending ORDER BY id
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
    this incarnation may not have it. It may not if its weights differ, if it is not ready or was asked to leave, or if
    this shard or what it holds runs alone; such a shard is published again at once.
    What its jobs may spend is reserved in each budget that the batch draws on. Jobs that do not fit stay behind in a
    shard of their own, and a paused batch gives none.
    A shard that this incarnation already holds is returned again, because the answer to the first claim's commit may
    have been lost. Raises LeaseLost.
    """
    incarnation = hold(connection, incarnation_id)
    turn = take_turn(connection, shard_id)
    shard = connection.execute(_SHARD, {"id": shard_id}).one_or_none()
    if shard is not None and shard.state == ShardState.HELD and shard.holder == incarnation_id:
        again = walls(connection, shard.batch_id, shard.job_ids) if shard.is_limited else None
        jobs = _open_attempts(connection, shard_id, incarnation_id, shard, again, is_new=False)
        return _claim(connection, shard_id, shard, jobs, incarnation.now)
    if shard is None or shard.state != ShardState.QUEUED:
        return None
    fits = (shard.model, shard.fingerprint) == (incarnation.model, incarnation.fingerprint)
    company = connection.execute(_COMPANY, {"holder": incarnation_id}).one()
    is_alone = not company.has_suspect and (company.num_shards == 0 or not shard.runs_alone)
    # A limit may have been set since the turn was asked for: then this claim has none, and the next one does.
    has_turn = turn is (Turn.TAKEN if shard.is_limited else Turn.NOT_NEEDED)
    may_claim = fits and is_alone and incarnation.takes_jobs and has_turn
    if not may_claim or _just_handed_back(connection, incarnation, shard):
        _give_back(connection, shard_id, shard.least_tokens)
        return None
    try:
        reserves = reserve(connection, shard_id, shard.batch_id, shard.job_ids) if shard.is_limited else None
    except Unfit as unfit:
        _give_back(connection, shard_id, unfit.least_tokens)
        return None
    jobs = _open_attempts(connection, shard_id, incarnation_id, shard, reserves, is_new=True)
    if not jobs:
        finish_shard(connection, shard_id)
        wake(connection)
        return None
    hold_shard(connection, shard_id, incarnation_id)
    return _claim(connection, shard_id, shard, jobs, incarnation.now)


def _claim(
    connection: Connection, shard_id: int, shard: Row[Any], jobs: tuple[ClaimedJob, ...], now: datetime
) -> Claim:
    scopes = {lesson_scope(job.request, shard.fingerprint) for job in jobs}
    known = former(connection, shard.tenant_id, scopes)
    return Claim(
        shard_id, Lane(shard.lane), jobs, learned(connection, [shard.batch_id]).get(shard.batch_id, {}), known, now
    )


def _just_handed_back(connection: Connection, incarnation: Incarnation, shard: Row[Any]) -> bool:
    """Returns whether the incarnation's last tick handed the jobs back or on: only the next one proves that it stopped
    them.

    Their shard was cut by that tick, so an older one needs no look.
    """
    last_tick = incarnation.billed_until
    if shard.created_at < last_tick:
        return False
    values = {"ids": shard.job_ids, "incarnation_id": incarnation.id, "last_tick": last_tick}
    return bool(connection.execute(_JUST_HANDED_BACK, values).scalar_one())


def _give_back(connection: Connection, shard_id: int, least_tokens: int | None) -> None:
    connection.execute(_HAND_BACK, {"id": shard_id, "least_tokens": least_tokens})
    wake(connection)


def _open_attempts(
    connection: Connection,
    shard_id: int,
    incarnation_id: str,
    shard: Row[Any],
    reserves: Sequence[Reserve] | None,
    *,
    is_new: bool,
) -> tuple[ClaimedJob, ...]:
    """Opens attempts for the jobs with a reserve, or without a budget (None) for all."""
    ids = shard.job_ids if reserves is None else [one.job_id for one in reserves]
    values = {"ids": ids, "shard_id": shard_id, "batch_id": shard.batch_id}
    values |= {"incarnation_id": incarnation_id, "is_new": is_new}
    values |= {"reserves": dumps([asdict(one) for one in reserves or ()])}
    rows = connection.execute(_ATTEMPT, values).all()
    deltas: dict[int, list[JsonObject]] = defaultdict(list)
    for job_id, delta in connection.execute(_DELTAS, {"ids": [row.job_id for row in rows]}):
        deltas[job_id].append(delta)
    limits = {one.job_id: one.most_tokens for one in reserves or () if one.tokens is not None}
    return tuple(
        ClaimedJob(
            row.job_id,
            row.tenant_id,
            row.batch_id,
            _walled(row.request, limits.get(row.job_id)),
            deltas[row.job_id],
            Lane(shard.lane),
            row.created_at,
            tuple(row.former_outcomes or ()),
        )
        for row in rows
    )


def _walled(request: JsonObject, limit: int | None) -> JsonObject:
    """Gives a job without a token budget the limit that was reserved for it, for its worker to keep."""
    budget = request.get("budget") or {}
    if limit is None or budget.get("tokens") is not None:
        return request
    return request | {"budget": budget | {"tokens": limit}}
