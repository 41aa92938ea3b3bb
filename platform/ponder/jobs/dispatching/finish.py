"""Ends batches, and lets the rows of their jobs follow."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from ponder.domain.budget import Allowance
from ponder.domain.state import BatchState, JobState
from ponder.jobs.budgets.need import least_needs
from ponder.jobs.budgets.warn import note_exhausted, warn
from ponder.jobs.learn import remember
from ponder.jobs.shard import finish_queued
from ponder.jobs.wake import wake
from ponder.jobs.webhooks.announce import announce, announce_exhausted, announce_warnings
from ponder.ledger.spending import allowances, open_allowances
from ponder.store.document import dumps

_AT_A_TIME = 20_000
"""Lines that follow in one transaction. Workers that hold jobs among them wait for it."""

# A batch that another transaction is changing is left for the next round.
_COMPLETE = text("""
    UPDATE batches SET state = 'completed', finalizing_at = clock_timestamp(), completed_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM batches
        WHERE state = 'in_progress' AND NOT EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'pending')
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id
""")

_EXHAUST = text("""
    UPDATE batches SET exhausted_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM batches
        WHERE id = ANY(CAST(:batch_ids AS text[])) AND state = 'in_progress' AND exhausted_at IS NULL
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id
""")

# A batch stays marked while others hold a reserve of its budget, until there is room for one of its jobs.
_GO_ON = text("""
    UPDATE batches SET exhausted_at = NULL
    WHERE id IN (
        SELECT id FROM batches
        WHERE state = 'in_progress' AND exhausted_at IS NOT NULL AND id <> ALL(CAST(:held_up AS text[]))
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
""")

# From here on the state of the batch counts (see store/job_state.py).
_EXPIRE = text("""
    UPDATE batches SET state = 'expired', expired_at = clock_timestamp(), followed_line = 0
    WHERE id IN (
        SELECT id FROM batches WHERE state IN ('validating', 'in_progress') AND expires_at <= clock_timestamp()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id
""")

_CANCEL = text("""
    UPDATE batches SET state = 'cancelled', cancelled_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM batches WHERE state = 'cancelling'
           AND NOT EXISTS (SELECT FROM shards WHERE batch_id = batches.id AND state = 'held')
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id
""")

# One batch at a time, in turns, so that small batches do not wait for a huge one.
_FOLLOWING = text("""
    SELECT id, state, followed_line, (SELECT max(line) FROM jobs WHERE batch_id = batches.id) AS last_line
    FROM batches WHERE followed_line IS NOT NULL AND state IN ('cancelled', 'expired')
    ORDER BY followed_line, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

_END_JOBS = text("""
    WITH job AS (
        UPDATE jobs SET state = :state, settled_at = clock_timestamp()
        WHERE id IN (
            SELECT id FROM jobs
            WHERE batch_id = :batch_id AND line > :after AND line <= :until AND state = 'pending'
            ORDER BY id FOR NO KEY UPDATE
        )
        RETURNING id, line
    )
    INSERT INTO tallies (batch_id, job_ids, num_expired, num_cancelled)
    SELECT :batch_id, array_agg(id ORDER BY line), CASE WHEN :state = 'expired' THEN count(*) ELSE 0 END,
           CASE WHEN :state = 'cancelled' THEN count(*) ELSE 0 END
    FROM job HAVING count(*) > 0
""")

_FOLLOWED = text("UPDATE batches SET followed_line = CAST(:line AS integer) WHERE id = :batch_id")

# Only cancelled and expired jobs still have deltas; settling a job deletes its own.
_FORGET_TREES = text("DELETE FROM tree_deltas WHERE batch_id = ANY(CAST(:batch_ids AS text[]))")

# Rows only: the contents of output and error files are streamed from the results. Those that an exhausted budget made
# may have been measured since then, and have grown.
_FILES = text("""
    WITH made AS (
        SELECT batches.id AS batch_id, batches.tenant_id, planned.output_id, planned.error_id,
               output_file_id IS NULL
                   AND EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'completed') AS has_output,
               error_file_id IS NULL AND (
                   EXISTS (SELECT FROM rejected_lines WHERE batch_id = batches.id)
                   OR EXISTS (SELECT FROM jobs WHERE batch_id = batches.id
                              AND (state IN ('failed', 'expired', 'cancelled')
                                   OR (state = 'pending' AND batches.state <> 'in_progress')))) AS has_errors
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
    ), grown AS (
        UPDATE files SET bytes = 0 FROM made JOIN batches ON batches.id = made.batch_id
        WHERE files.id IN (batches.output_file_id, batches.error_file_id) AND files.bytes > 0
    )
    UPDATE batches SET output_file_id = CASE WHEN has_output THEN output_id ELSE output_file_id END,
                       error_file_id = CASE WHEN has_errors THEN error_id ELSE error_file_id END
    FROM made WHERE made.batch_id = batches.id
""")


def finish(connection: Connection) -> int:
    """Completes batches without pending jobs, expires late ones and ends cancelled ones. Returns how many it moved.

    A batch of which no job runs, and whose budgets admit no further one, is marked as exhausted and gets its files.
    Budgets that have passed 80 or 100 percent get a warning. All of it is announced to webhooks.
    A cancelled batch ends when no worker holds any of its shards. Workers learn at their next tick that their batch was
    cancelled or has expired. `follow` updates the rows of its jobs later, and nobody waits for that.
    """
    ended = {BatchState.COMPLETED: connection.execute(_COMPLETE).scalars().all()}
    limited = open_allowances(connection)
    _mark_exhausted(connection, limited)
    for state, statement in {BatchState.EXPIRED: _EXPIRE, BatchState.CANCELLED: _CANCEL}.items():
        ended[state] = connection.execute(statement).scalars().all()
    batch_ids = [batch_id for moved in ended.values() for batch_id in moved]
    announce_warnings(connection, warn(connection, (limited | allowances(connection, batch_ids)).values()))
    if batch_ids:
        finish_queued(connection, batch_ids)
        _make_files(connection, batch_ids)
        remember(connection, batch_ids)
    if ended[BatchState.COMPLETED]:
        connection.execute(_FORGET_TREES, {"batch_ids": ended[BatchState.COMPLETED]})
    for state, moved in ended.items():
        announce(connection, state, moved)
    return len(batch_ids)


def _mark_exhausted(connection: Connection, limited: Mapping[str, Allowance]) -> None:
    needs = least_needs(connection, limited)
    exhausted = {
        batch_id: limit
        for batch_id, least in needs.items()
        if (limit := limited[batch_id].exhausted(least)) is not None
    }
    marked = connection.execute(_EXHAUST, {"batch_ids": sorted(exhausted)}).scalars().all() if exhausted else ()
    held_up = [batch_id for batch_id, least in needs.items() if limited[batch_id].held_up_by(least)]
    connection.execute(_GO_ON, {"held_up": held_up})
    if marked:
        _make_files(connection, marked)
    news = note_exhausted(connection, exhausted)
    announce_exhausted(connection, {batch_id: exhausted[batch_id] for batch_id in news})


def follow(connection: Connection) -> None:
    """Ends the pending jobs of a batch that was cancelled or has expired, 20,000 lines per call."""
    batch = connection.execute(_FOLLOWING).one_or_none()
    if batch is None:
        return
    until = batch.followed_line + _AT_A_TIME
    state = JobState.EXPIRED if batch.state == BatchState.EXPIRED else JobState.CANCELLED
    values = {"batch_id": batch.id, "after": batch.followed_line, "until": until}
    connection.execute(_END_JOBS, values | {"state": state.value})
    is_done = until >= (batch.last_line or 0)
    connection.execute(_FOLLOWED, {"batch_id": batch.id, "line": None if is_done else until})
    if not is_done:
        wake(connection)
        return
    finish_queued(connection, [batch.id])
    connection.execute(_FORGET_TREES, {"batch_ids": [batch.id]})
    # A tick that was under way when the batch expired may have completed the first of its jobs.
    _make_files(connection, [batch.id])


def _make_files(connection: Connection, batch_ids: Sequence[str]) -> None:
    connection.execute(_FILES, {"planned": dumps([_planned(batch_id) for batch_id in batch_ids])})


def _planned(batch_id: str) -> dict[str, str]:
    """Makes identifiers for files that may turn out to be needed."""
    output_id, error_id = (f"file-{secrets.token_hex(12)}" for _ in range(2))
    return {"batch_id": batch_id, "output_id": output_id, "error_id": error_id}
