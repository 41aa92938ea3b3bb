"""Prunes discarded batches: deletes their prompts, results, search trees and files, in pieces. The ledger stays."""

from __future__ import annotations

from time import monotonic

from sqlalchemy import Connection, Engine, text

from ponder.jobs import learn, worker_sample
from ponder.jobs.retention.discard import discard, discard_input
from ponder.store.retention import ERROR_LEFT, REQUEST_LEFT

_LINES = 500
"""Lines of a batch that are pruned in one transaction."""
_CHUNKS = 16
"""Chunks of a file that are deleted in one transaction."""

# Nothing depends on one piece. Other transactions lock rows of an ended batch only for a moment.
_HURRY = text("SET LOCAL lock_timeout = '200ms'")

_SIGNED_OUT = tuple(
    text(f"DELETE FROM {table} WHERE expires_at < clock_timestamp()") for table in ("console_sessions", "sign_in_links")
)

_NEXT = text("""
    SELECT id, pruned_line FROM batches WHERE pruned_line IS NOT NULL
    ORDER BY pruned_line, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

# Usage, verdicts and costs stay, and so do the fields that reports group by.
_PRUNE = text(f"""
    WITH piece AS MATERIALIZED (
        SELECT line FROM (
            (SELECT line FROM jobs WHERE batch_id = :batch_id AND line > :after ORDER BY line LIMIT {_LINES})
            UNION ALL
            (SELECT line FROM rejected_lines WHERE batch_id = :batch_id AND line > :after ORDER BY line LIMIT {_LINES})
        ) AS either ORDER BY line LIMIT {_LINES}
    ), reach AS (
        SELECT max(line) AS line, count(*) AS num FROM piece
    ), job AS (
        UPDATE jobs SET request = {REQUEST_LEFT}
        WHERE id IN (
            SELECT id FROM jobs, reach
            WHERE batch_id = :batch_id AND jobs.line > :after AND jobs.line <= reach.line ORDER BY id FOR NO KEY UPDATE
        )
        RETURNING id
    ), result AS (
        UPDATE results SET answer = NULL, choices = NULL, error = {ERROR_LEFT}
        FROM job WHERE results.job_id = job.id
    ), tree AS (
        DELETE FROM search_trees USING job WHERE search_trees.job_id = job.id
    ), delta AS (
        DELETE FROM tree_deltas USING job WHERE tree_deltas.job_id = job.id
    ), refused AS (
        DELETE FROM rejected_lines USING reach
        WHERE batch_id = :batch_id AND rejected_lines.line > :after AND rejected_lines.line <= reach.line
    )
    SELECT line, num FROM reach
""")

_PRUNED = text("UPDATE batches SET pruned_line = CAST(:line AS integer) WHERE id = :batch_id")

_ERASE_CHUNKS = text(f"""
    WITH file AS (
        SELECT id FROM files WHERE is_erasing ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    ), chunk AS (
        DELETE FROM file_chunks USING file
        WHERE file_id = file.id AND ordinal IN (
            SELECT ordinal FROM file_chunks WHERE file_id = file.id ORDER BY ordinal LIMIT {_CHUNKS}
        )
        RETURNING ordinal
    )
    UPDATE files SET is_erasing = (SELECT count(*) FROM chunk) = {_CHUNKS}
    FROM file WHERE files.id = file.id RETURNING files.id
""")


def prune(engine: Engine, *, for_s: float) -> bool:
    """Discards what has expired, old samples of workers and old lessons, then deletes for about so many seconds.

    What has expired are results, sessions of the console, and the links that sign in to it.

    Returns whether more is left to delete.
    """
    end = monotonic() + for_s
    with engine.begin() as connection:
        connection.execute(_HURRY)
        discard(connection)
        worker_sample.forget(connection)
        learn.forget(connection)
        for expired in _SIGNED_OUT:
            connection.execute(expired)
    is_left = True
    while is_left and monotonic() < end:
        with engine.begin() as connection:
            connection.execute(_HURRY)
            is_left = _prune_lines(connection) or _erase_chunks(connection)
    return is_left


def _prune_lines(connection: Connection) -> bool:
    """Prunes the next lines of a batch, in turns. Returns whether there was one."""
    batch = connection.execute(_NEXT).one_or_none()
    if batch is None:
        return False
    piece = connection.execute(_PRUNE, {"batch_id": batch.id, "after": batch.pruned_line}).one()
    is_done = piece.num < _LINES
    connection.execute(_PRUNED, {"batch_id": batch.id, "line": None if is_done else piece.line})
    if is_done:
        discard_input(connection, batch.id)
    return True


def _erase_chunks(connection: Connection) -> bool:
    return connection.execute(_ERASE_CHUNKS).first() is not None
