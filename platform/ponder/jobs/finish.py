"""The last moves of batches."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy import Connection, text

from ponder.domain.state import BatchState, JobState
from ponder.jobs.wake import wake
from ponder.store.document import dumps

_AT_A_TIME = 20_000
"""Jobs that one transaction ends: workers that hold them wait for it."""

# A batch that somebody else is changing is left for the next time.
_COMPLETE = text("""
    UPDATE batches SET state = 'completed', finalizing_at = clock_timestamp(), completed_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM batches
        WHERE state = 'in_progress' AND NOT EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'pending')
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id
""")

_LATE = text("""
    SELECT id FROM batches WHERE state IN ('validating', 'in_progress') AND expires_at <= clock_timestamp()
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
""")

_CANCELLING = text("SELECT id FROM batches WHERE state = 'cancelling' ORDER BY id FOR NO KEY UPDATE SKIP LOCKED")

_END_JOBS = text(f"""
    UPDATE jobs SET state = :state, settled_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM jobs WHERE batch_id = ANY(CAST(:batch_ids AS text[])) AND state = 'pending'
        ORDER BY id LIMIT {_AT_A_TIME} FOR NO KEY UPDATE
    )
""")

_EXPIRE = text("""
    UPDATE batches SET state = 'expired', expired_at = clock_timestamp()
    WHERE id = ANY(CAST(:batch_ids AS text[]))
      AND NOT EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'pending')
    RETURNING id
""")

_CANCEL = text("""
    UPDATE batches SET state = 'cancelled', cancelled_at = clock_timestamp()
    WHERE id = ANY(CAST(:batch_ids AS text[]))
      AND NOT EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'pending')
      AND NOT EXISTS (SELECT FROM shards WHERE batch_id = batches.id AND state = 'held')
    RETURNING id
""")

_CLOSE_SHARDS = text("""
    UPDATE shards SET state = 'finished', finished_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM shards WHERE batch_id = ANY(CAST(:batch_ids AS text[])) AND state = 'queued'
        ORDER BY id FOR NO KEY UPDATE
    )
""")

# Of cancelled and expired jobs: those of settled ones have gone already.
_FORGET_TREES = text("DELETE FROM tree_deltas WHERE batch_id = ANY(CAST(:batch_ids AS text[]))")

# Rows only: what they contain is streamed from the results.
_FILES = text("""
    WITH made AS (
        SELECT batches.id AS batch_id, batches.tenant_id, planned.output_id, planned.error_id,
               output_file_id IS NULL
                   AND EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'completed') AS has_output,
               error_file_id IS NULL AND (
                   EXISTS (SELECT FROM rejected_lines WHERE batch_id = batches.id)
                   OR EXISTS (SELECT FROM jobs WHERE batch_id = batches.id
                              AND state IN ('failed', 'expired', 'cancelled'))) AS has_errors
        FROM json_to_recordset(CAST(:planned AS json)) AS planned(batch_id text, output_id text, error_id text)
        JOIN batches ON batches.id = planned.batch_id
    ), output AS (
        INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes, batch_id)
        SELECT output_id, tenant_id, batch_id || '_output.jsonl', 'batch_output', 'output', 0, batch_id
        FROM made WHERE has_output
    ), errors AS (
        INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes, batch_id)
        SELECT error_id, tenant_id, batch_id || '_errors.jsonl', 'batch_output', 'errors', 0, batch_id
        FROM made WHERE has_errors
    )
    UPDATE batches SET output_file_id = CASE WHEN has_output THEN output_id ELSE output_file_id END,
                       error_file_id = CASE WHEN has_errors THEN error_id ELSE error_file_id END
    FROM made WHERE made.batch_id = batches.id
""")


def finish(connection: Connection) -> int:
    """Completes batches without pending jobs, expires late ones, ends cancelled ones; returns how many it moved.

    The jobs of a late batch expire at most 20,000 at a time, and the batch with the last of them; workers hear of it
    at their next tick. A cancelled batch ends when no worker holds any of its shards.
    """
    ended = list(connection.execute(_COMPLETE).scalars())
    ended += _end(connection, BatchState.EXPIRED)
    ended += _end(connection, BatchState.CANCELLED)
    if ended:
        connection.execute(_CLOSE_SHARDS, {"batch_ids": ended})
        connection.execute(_FORGET_TREES, {"batch_ids": ended})
        connection.execute(_FILES, {"planned": dumps([_planned(batch_id) for batch_id in ended])})
    return len(ended)


def _end(connection: Connection, target: BatchState) -> Sequence[str]:
    is_late = target is BatchState.EXPIRED
    batch_ids = list(connection.execute(_LATE if is_late else _CANCELLING).scalars())
    if not batch_ids:
        return []
    job_state = JobState.EXPIRED if is_late else JobState.CANCELLED
    jobs = connection.execute(_END_JOBS, {"state": job_state.value, "batch_ids": batch_ids})
    if jobs.rowcount == _AT_A_TIME:
        wake(connection)  # there may be more
    return connection.execute(_EXPIRE if is_late else _CANCEL, {"batch_ids": batch_ids}).scalars().all()


def _planned(batch_id: str) -> dict[str, str]:
    """Identifiers that are used if there is something to name."""
    output_id, error_id = (f"file-{secrets.token_hex(12)}" for _ in range(2))
    return {"batch_id": batch_id, "output_id": output_id, "error_id": error_id}
