"""The past of claimed jobs, as their traces tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the jobs of a shard come from. Times are Unix times by Postgres's clock.

    traceparent: the span of the batch's submission. submitted_at: when it was submitted. ready_at: since when each job
    could be claimed.
    """

    traceparent: str
    submitted_at: float
    ready_at: Mapping[int, float]


# Ready since its batch began, or since the last attempt gave it back.
_ORIGIN = text("""
    SELECT traceparent, CAST(extract(epoch FROM batches.created_at) AS float8) AS submitted_at, job_id,
           CAST(extract(epoch FROM greatest(in_progress_at, (
               SELECT max(ended_at) FROM attempts WHERE attempts.job_id = job.job_id
           ))) AS float8) AS ready_at
    FROM shards JOIN batches ON batches.id = batch_id CROSS JOIN LATERAL unnest(job_ids) AS job(job_id)
    WHERE shards.id = :id AND traceparent IS NOT NULL AND in_progress_at IS NOT NULL
""")


def origin_of(connection: Connection, shard_id: int) -> Origin | None:
    """Returns None for a shard of a batch that is not traced."""
    rows = connection.execute(_ORIGIN, {"id": shard_id}).all()
    if not rows:
        return None
    return Origin(rows[0].traceparent, rows[0].submitted_at, {row.job_id: row.ready_at for row in rows})
