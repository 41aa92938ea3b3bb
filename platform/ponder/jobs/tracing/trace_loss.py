"""Tells of jobs' traces what a dead worker no longer can."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, text

from ponder.trace import Span, Tracer, attempt_span, job_span, trace_of

_ENDED = text("""
    SELECT job_id, shard_id, attempts.incarnation_id, outcome, jobs.batch_id, jobs.model, jobs.strategy, jobs.state,
           machine, market, traceparent,
           CAST(extract(epoch FROM batches.created_at) AS float8) AS submitted_at,
           CAST(extract(epoch FROM attempts.started_at) AS float8) AS started_at,
           CAST(extract(epoch FROM attempts.ended_at) AS float8) AS ended_at
    FROM attempts JOIN incarnations ON incarnations.id = attempts.incarnation_id
    JOIN jobs ON jobs.id = job_id JOIN batches ON batches.id = jobs.batch_id
    WHERE attempts.incarnation_id = ANY(CAST(:ids AS text[])) AND attempts.ended_at = incarnations.ended_at
      AND outcome IN ('lost', 'preempted') AND traceparent IS NOT NULL
""")


def trace_loss(connection: Connection, tracer: Tracer, incarnation_ids: Sequence[str]) -> None:
    """Exports the span `attempt` of each job that swept incarnations held, and `job` of those that failed thereby."""
    for row in connection.execute(_ENDED, {"ids": list(incarnation_ids)}):
        trace_id = trace_of(row.batch_id, row.job_id)
        if tracer.samples(trace_id):
            tracer.export(_attempt(trace_id, row))
            if row.state == "failed":
                tracer.export(_job(trace_id, row))


def _attempt(trace_id: int, row: Row[tuple[object, ...]]) -> Span:
    return Span(
        "attempt",
        trace_id,
        job_span(trace_id),
        row.started_at,
        row.ended_at,
        span_id=attempt_span(trace_id, row.shard_id, row.incarnation_id),
        attributes={
            "ponder.job.id": f"job_{row.job_id}",
            "ponder.batch.id": row.batch_id,
            "ponder.incarnation.id": row.incarnation_id,
            "ponder.model": row.model,
            "ponder.machine": row.machine,
            "ponder.market": row.market,
            "ponder.outcome": row.outcome,
        },
        has_failed=row.outcome == "lost",
    )


def _job(trace_id: int, row: Row[tuple[object, ...]]) -> Span:
    return Span(
        "job",
        trace_id,
        None,
        row.submitted_at,
        row.ended_at,
        span_id=job_span(trace_id),
        attributes={
            "ponder.job.id": f"job_{row.job_id}",
            "ponder.batch.id": row.batch_id,
            "ponder.model": row.model,
            "ponder.strategy": row.strategy,
            "ponder.state": row.state,
        },
        links=[row.traceparent],
        has_failed=True,
    )
