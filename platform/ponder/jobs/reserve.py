"""Reserves what claimed jobs may spend of the budgets that their batch draws on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from ponder.domain.budget import Allowance, most_tokens
from ponder.ledger.spending import IS_LIMITED, allowances

_TURN_S = 1.0
"""How long a claim waits for another one of the same budget. One that is frozen in its transaction must not stop it."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """The part of each budget that is kept for one job; None where no budget has such a limit.

    `most_tokens` is the job's own wall, over all its attempts.
    """

    job_id: int
    tokens: int | None
    nanodollars: int | None
    most_tokens: int


class Unfit(Exception):
    """The budgets of the batch admit none of the jobs now. `least_tokens` would do for one of them; None: unknown."""

    def __init__(self, least_tokens: int | None) -> None:
        super().__init__("no job fits into the budget")
        self.least_tokens = least_tokens


_IS_LIMITED = text(f"""
    SELECT batches.id AS batch_id, tenant_id, EXISTS (SELECT FROM budgets WHERE tenant_id = batches.tenant_id) AS renews
    FROM batches WHERE id = (SELECT batch_id FROM shards WHERE id = :shard_id) AND {IS_LIMITED}
""")

_LOCK_TENANT = text("SELECT id FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")

_LOCK_BATCH = text("SELECT id FROM batches WHERE id = :batch_id FOR NO KEY UPDATE")

_PATIENCE = text("SELECT current_setting('lock_timeout')")

_SET_PATIENCE = text("SELECT set_config('lock_timeout', :patience, true)")

_NEEDS = text("""
    SELECT jobs.id, request, coalesce(context_length, 1) AS context_length,
           (SELECT CAST(coalesce(sum(num_tokens), 0) AS bigint) FROM tree_deltas WHERE job_id = jobs.id) AS num_saved
    FROM jobs LEFT JOIN models ON models.name = jobs.model AND models.fingerprint = jobs.fingerprint
    WHERE jobs.id = ANY(CAST(:ids AS bigint[])) AND jobs.state = 'pending' ORDER BY jobs.id
""")

_LEAVE = text("""
    WITH rest AS (
        INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens, runs_alone,
                            least_tokens)
        SELECT tenant_id, batch_id, model, fingerprint, lane, CAST(:rest AS bigint[]),
               (SELECT sum(estimated_tokens) FROM jobs WHERE id = ANY(CAST(:rest AS bigint[]))), runs_alone,
               CAST(:least_tokens AS bigint)
        FROM shards WHERE id = :shard_id
    )
    UPDATE shards SET job_ids = CAST(:taken AS bigint[]),
        estimated_tokens = (SELECT sum(estimated_tokens) FROM jobs WHERE id = ANY(CAST(:taken AS bigint[])))
    WHERE id = :shard_id
""")


class Turn(Enum):
    """The answer to a claim that asks for its turn at the budgets of a batch."""

    TAKEN = auto()
    NOT_NEEDED = auto()
    """The batch draws on no budget."""
    MISSED = auto()
    """Another claim has not ended in time."""


def take_turn(connection: Connection, shard_id: int) -> Turn:
    """Makes other claims wait that draw on the same budgets, so that no two reserve the same rest of one."""
    limited = connection.execute(_IS_LIMITED, {"shard_id": shard_id}).one_or_none()
    if limited is None:
        return Turn.NOT_NEEDED
    patience = connection.execute(_PATIENCE).scalar_one()
    try:
        with connection.begin_nested():
            connection.execute(_SET_PATIENCE, {"patience": f"{_TURN_S:.0f}s"})
            if limited.renews:
                connection.execute(_LOCK_TENANT, {"tenant_id": limited.tenant_id})
            connection.execute(_LOCK_BATCH, {"batch_id": limited.batch_id})
    except DBAPIError as error:
        if "55P03" not in str(error.orig):  # lock_not_available
            raise
        return Turn.MISSED
    connection.execute(_SET_PATIENCE, {"patience": patience})
    return Turn.TAKEN


def reserve(connection: Connection, shard_id: int, batch_id: str, job_ids: Sequence[int]) -> list[Reserve] | None:
    """Reserves for those jobs of a locked shard that fit into the budgets. The others are left in a new shard.

    Returns None if there is no budget. Raises Unfit if no pending job fits, or if the batch is paused.
    """
    allowance = allowances(connection, [batch_id]).get(batch_id)
    if allowance is None:
        return None
    needs = connection.execute(_NEEDS, {"ids": job_ids}).all()
    reserves = [_reserve(job, allowance) for job in needs]
    taken = _fitting(reserves, allowance)
    if not taken and reserves:
        raise Unfit(_least(reserves))
    if len(taken) < len(reserves):
        rest = [one for one in reserves if one not in taken]
        ids = {"taken": [one.job_id for one in taken], "rest": [one.job_id for one in rest]}
        connection.execute(_LEAVE, ids | {"shard_id": shard_id, "least_tokens": _least(rest)})
    return taken


def walls(connection: Connection, batch_id: str, job_ids: Sequence[int]) -> list[Reserve] | None:
    """Returns again what was reserved for jobs, less what was drawn since: their walls are the same."""
    allowance = allowances(connection, [batch_id]).get(batch_id)
    if allowance is None:
        return None
    return [_reserve(job, allowance) for job in connection.execute(_NEEDS, {"ids": job_ids})]


def _reserve(job: Row[Any], allowance: Allowance) -> Reserve:
    most = most_tokens(job.request, job.context_length)
    return Reserve(
        job_id=job.id,
        tokens=max(0, most - job.num_saved) if allowance.has_tokens else None,
        nanodollars=allowance.job_nanodollars if allowance.has_dollars else None,
        most_tokens=most,
    )


def _least(reserves: Sequence[Reserve]) -> int | None:
    return min((one.tokens for one in reserves if one.tokens is not None), default=None)


def _fitting(reserves: Sequence[Reserve], allowance: Allowance) -> list[Reserve]:
    """Returns the jobs that fit, in their order. A small one may fit behind a large one that does not."""
    taken: list[Reserve] = []
    if allowance.must_stop:
        return taken
    room_tokens, room_nanodollars = allowance.room_tokens or 0, allowance.room_nanodollars or 0
    num_more = len(reserves) if allowance.num_more is None else allowance.num_more
    for one in reserves:
        if len(taken) == num_more:
            break
        if (one.tokens or 0) <= max(room_tokens, 0) and (one.nanodollars or 0) <= max(room_nanodollars, 0):
            taken.append(one)
            room_tokens -= one.tokens or 0
            room_nanodollars -= one.nanodollars or 0
    return taken
