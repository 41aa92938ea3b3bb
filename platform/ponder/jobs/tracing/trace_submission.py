"""The beginning of jobs' traces."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from ponder.trace import Span, Tracer, job_span, span_of, trace_of

# Jobs that were held before have their span already.
_NEW = text("""
    SELECT batch_id, batches.tenant_id, traceparent, model, job_ids,
           CAST(extract(epoch FROM batches.created_at) AS float8) AS submitted_at,
           CAST(extract(epoch FROM in_progress_at) AS float8) AS ready_at
    FROM shards JOIN batches ON batches.id = batch_id
    WHERE shards.id = ANY(CAST(:ids AS bigint[])) AND traceparent IS NOT NULL AND in_progress_at IS NOT NULL
      AND NOT EXISTS (SELECT FROM attempts WHERE job_id = ANY(job_ids))
""")


def trace_submission(connection: Connection, tracer: Tracer, shard_ids: Sequence[int]) -> None:
    """Exports the span `submission` of each job in shards that were just published for the first time.

    It ends when the job could be claimed. That is told here and not at the validation, which makes a million jobs at
    once.
    """
    for row in connection.execute(_NEW, {"ids": list(shard_ids)}):
        for job_id in row.job_ids:
            trace_id = trace_of(row.batch_id, job_id)
            if tracer.samples(trace_id):
                about = {"ponder.job.id": f"job_{job_id}", "ponder.batch.id": row.batch_id, "ponder.model": row.model}
                tracer.export(
                    Span(
                        "submission",
                        trace_id,
                        job_span(trace_id),
                        row.submitted_at,
                        row.ready_at,
                        span_id=span_of(trace_id, "submission"),
                        attributes=about,
                        links=[row.traceparent],
                    )
                )
