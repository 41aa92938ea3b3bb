"""Cuts new shards from jobs that a holder did not finish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, text

from ponder.domain.state import AttemptOutcome, JobState
from ponder.jobs.dispatching.order import num_taken
from ponder.jobs.settle import settle
from ponder.jobs.shard import MAX_JOBS, finish_held
from ponder.jobs.tick_report import NextStage, Settlement, Usage
from ponder.store.document import dumps

LOSSES_TO_BE_ALONE = 2
_LOSSES_TO_FAIL = 3


@dataclass(frozen=True, slots=True)
class Recut:
    num_handed_on: int
    num_failed: int


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    tenant_id: str
    batch_id: str
    model: str
    fingerprint: str
    lane: str
    estimated_tokens: int
    num_lost: int

    @property
    def kin(self) -> tuple[str, ...]:
        """The key that jobs must share to be in one shard."""
        return (self.tenant_id, self.batch_id, self.model, self.fingerprint, self.lane)

    @property
    def is_suspect(self) -> bool:
        """Whether its workers may have died of it."""
        return self.num_lost >= LOSSES_TO_BE_ALONE


# Attempts end first, because the number of losses decides how a job is cut.
_END_ATTEMPTS = text("""
    UPDATE attempts SET outcome = :outcome, ended_at = CAST(:at AS timestamptz)
    WHERE incarnation_id = :incarnation_id AND ended_at IS NULL
""")

_END_ATTEMPTS_OF = text("""
    UPDATE attempts SET outcome = 'preempted', ended_at = CAST(:at AS timestamptz)
    WHERE incarnation_id = :incarnation_id AND ended_at IS NULL AND shard_id = ANY(CAST(:shard_ids AS bigint[]))
    RETURNING job_id
""")

# Out of their shard, so that nobody who cuts it anew finds them there.
_HAND_ON = text("""
    WITH moved AS (
        SELECT * FROM json_to_recordset(CAST(:moved AS json)) AS moved(job_id bigint, model text, fingerprint text)
    ), ended AS (
        UPDATE attempts SET outcome = 'handed_on', ended_at = CAST(:at AS timestamptz)
        FROM moved
        WHERE incarnation_id = :incarnation_id AND ended_at IS NULL AND attempts.job_id = moved.job_id
        RETURNING attempts.job_id, shard_id, model, fingerprint
    ), named AS MATERIALIZED (
        SELECT jobs.id, tenant_id, batch_id, ended.model, ended.fingerprint, estimated_tokens, state, shard_id
        FROM ended JOIN jobs ON jobs.id = ended.job_id
    ), smaller AS (
        UPDATE shards SET estimated_tokens = greatest(shards.estimated_tokens - leaving.tokens, 0),
                          job_ids = ARRAY(SELECT id FROM unnest(job_ids) WITH ORDINALITY AS kept(id, place)
                                          WHERE id <> ALL(leaving.ids) ORDER BY place)
        FROM (
            SELECT shard_id, array_agg(id) AS ids, sum(estimated_tokens) AS tokens FROM named GROUP BY shard_id
        ) AS leaving
        WHERE shards.id = leaving.shard_id
        RETURNING shards.id, lane
    )
    SELECT named.id, tenant_id, batch_id, model, fingerprint, lane, estimated_tokens,
           (SELECT count(*) FROM attempts WHERE job_id = named.id AND outcome = 'lost') AS num_lost
    FROM named JOIN smaller ON smaller.id = shard_id
    WHERE state = 'pending'
      AND EXISTS (SELECT FROM batches WHERE batches.id = named.batch_id AND batches.state = 'in_progress')
    ORDER BY named.id
""")

# First the jobs by id, then their state (see jobs/dispatching/cut.py).
_LEFT = text("""
    WITH named AS MATERIALIZED (
        SELECT jobs.id, jobs.tenant_id, jobs.batch_id, shards.model, shards.fingerprint, shards.lane,
               jobs.estimated_tokens, jobs.state
        FROM shards CROSS JOIN LATERAL unnest(shards.job_ids) AS job_id JOIN jobs ON jobs.id = job_id
        WHERE shards.id = ANY(CAST(:shard_ids AS bigint[]))
    )
    SELECT id, tenant_id, batch_id, model, fingerprint, lane, estimated_tokens,
           (SELECT count(*) FROM attempts WHERE job_id = named.id AND outcome = 'lost') AS num_lost
    FROM named WHERE state = 'pending'
      AND EXISTS (SELECT FROM batches WHERE batches.id = named.batch_id AND batches.state = 'in_progress')
    ORDER BY id
""")

_LOCK = text("""
    WITH locked AS MATERIALIZED (
        SELECT id, state FROM jobs WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE
    )
    SELECT id, (SELECT CAST(coalesce(sum(num_tokens), 0) AS bigint) FROM tree_deltas WHERE job_id = locked.id)
        AS num_tokens
    FROM locked WHERE state = 'pending'
""")

_CUT = text("""
    INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens, runs_alone)
    SELECT tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens, runs_alone
    FROM json_to_recordset(CAST(:shards AS json)) AS shard(
        tenant_id text, batch_id text, model text, fingerprint text, lane text, job_ids bigint[],
        estimated_tokens bigint, runs_alone boolean)
""")


def recut(
    connection: Connection, incarnation_id: str, at: datetime, *, outcome: AttemptOutcome, shard_tokens: int
) -> Recut:
    """Ends all attempts of an incarnation and hands its pending jobs on in new, unpublished shards.

    A job lost twice gets a shard that runs alone: its next holder holds nothing else. A job lost three times fails. The
    caller holds the lock on the incarnation.
    """
    connection.execute(_END_ATTEMPTS, {"incarnation_id": incarnation_id, "at": at, "outcome": outcome.value})
    return _cut_anew(connection, finish_held(connection, incarnation_id, at), at, shard_tokens)


def hand_back(connection: Connection, incarnation_id: str, at: datetime, batch_ids: Sequence[str]) -> list[int]:
    """Hands the jobs of some batches back, in shards of the same size, while the incarnation goes on.

    Returns the jobs. The caller holds the lock on the incarnation.
    """
    shard_ids = finish_held(connection, incarnation_id, at, batch_ids)
    values = {"incarnation_id": incarnation_id, "at": at, "shard_ids": shard_ids}
    job_ids = list(connection.execute(_END_ATTEMPTS_OF, values).scalars())
    for shard_id in shard_ids:
        _cut_anew(connection, [shard_id], at, shard_tokens=None)
    return job_ids


def hand_on(connection: Connection, incarnation_id: str, at: datetime, moved: Mapping[int, NextStage]) -> bool:
    """Ends the attempts of jobs whose cascade goes on with another model, and cuts shards of them for its workers.

    Being handed on costs a job nothing, but one that was lost twice still runs alone. Jobs that the incarnation does
    not hold are left alone. Returns whether it held any. The caller holds the lock on the incarnation.
    """
    if not moved:
        return False
    rows = [{"job_id": job_id, **asdict(stage)} for job_id, stage in moved.items()]
    values = {"incarnation_id": incarnation_id, "at": at, "moved": dumps(rows)}
    jobs = [_Job(**row._mapping) for row in connection.execute(_HAND_ON, values)]
    _cut(connection, jobs, shard_tokens=None)
    return True


def _cut_anew(connection: Connection, shard_ids: Sequence[int], at: datetime, shard_tokens: int | None) -> Recut:
    jobs = [_Job(**row._mapping) for row in connection.execute(_LEFT, {"shard_ids": shard_ids})] if shard_ids else []
    failed = [job for job in jobs if job.num_lost >= _LOSSES_TO_FAIL]
    if failed:
        locked = connection.execute(_LOCK, {"ids": [job.id for job in failed]})
        tokens = {row.id: row.num_tokens for row in locked}
        settle(connection, [_worker_lost(job, tokens[job.id]) for job in failed if job.id in tokens], at)
    left = [job for job in jobs if job.num_lost < _LOSSES_TO_FAIL]
    _cut(connection, left, shard_tokens)
    return Recut(num_handed_on=len(left), num_failed=len(failed))


def _cut(connection: Connection, jobs: Sequence[_Job], shard_tokens: int | None) -> None:
    """Cuts shards of jobs: those that may have killed their workers get one each."""
    alone = [job for job in jobs if job.is_suspect]
    together = sorted((job for job in jobs if not job.is_suspect), key=lambda job: (job.kin, job.id))
    shards: list[Sequence[_Job]] = [[job] for job in alone]
    for _, kin in groupby(together, key=lambda job: job.kin):
        shards.extend(_chunks(list(kin), shard_tokens))
    if shards:
        connection.execute(_CUT, {"shards": dumps([_row(shard) for shard in shards])})


def _worker_lost(job: _Job, num_tokens: int) -> Settlement:
    """Settles a lost job. Its usage is what it had saved; nobody knows the rest."""
    error = {"code": "worker_lost", "message": f"{job.num_lost} workers died while they held this job"}
    return Settlement(job.id, JobState.FAILED, error=error, usage=Usage(completion_tokens=num_tokens))


def _chunks(jobs: Sequence[_Job], shard_tokens: int | None) -> Iterator[Sequence[_Job]]:
    """Splits jobs into those of one shard each."""
    start = 0
    while start < len(jobs):
        near = jobs[start : start + MAX_JOBS]
        number = num_taken((job.estimated_tokens for job in near), shard_tokens)
        yield near[:number]
        start += number


def _row(shard: Sequence[_Job]) -> dict[str, Any]:
    first = shard[0]
    return {
        "tenant_id": first.tenant_id,
        "batch_id": first.batch_id,
        "model": first.model,
        "fingerprint": first.fingerprint,
        "lane": first.lane,
        "job_ids": [job.id for job in shard],
        "estimated_tokens": sum(job.estimated_tokens for job in shard),
        "runs_alone": first.is_suspect,
    }
