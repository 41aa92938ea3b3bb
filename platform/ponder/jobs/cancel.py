"""Stopping a batch."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain.state import BatchState, sources
from ponder.errors import Conflict, NotFound
from ponder.jobs.wake import wake

_AT_ONCE = 20_000
"""Jobs; the dispatcher cancels what is left of a larger batch."""

_CANCEL = text(
    """
    UPDATE batches SET state = 'cancelling', cancelling_at = clock_timestamp()
    WHERE id = :id AND tenant_id = :tenant_id AND state = ANY(CAST(:sources AS text[]))
    """
)
_STATE = text("SELECT state FROM batches WHERE id = :id AND tenant_id = :tenant_id")
_SHARDS = text(
    """
    UPDATE shards SET state = 'finished', finished_at = clock_timestamp()
    WHERE id IN (SELECT id FROM shards WHERE batch_id = :id AND state = 'queued' ORDER BY id FOR NO KEY UPDATE)
    """
)
_JOBS = text(
    f"""
    UPDATE jobs SET state = 'cancelled', settled_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM jobs WHERE batch_id = :id AND state = 'pending' ORDER BY id LIMIT {_AT_ONCE} FOR NO KEY UPDATE
    )
    """
)


def cancel(connection: Connection, tenant_id: str, batch_id: str) -> None:
    """No job of it begins any more, and workers drop theirs at the next tick; what is settled stays settled.

    Does nothing to a batch that is being cancelled or is cancelled. Raises NotFound, and Conflict for a batch that
    has ended otherwise. Locks the batch, then its shards, then its jobs, each by id.
    """
    cancelled = connection.execute(
        _CANCEL, {"id": batch_id, "tenant_id": tenant_id, "sources": sources(BatchState.CANCELLING)}
    )
    if cancelled.rowcount == 0:
        state = connection.execute(_STATE, {"id": batch_id, "tenant_id": tenant_id}).scalar()
        if state is None:
            raise NotFound(f"there is no batch {batch_id}", param="batch_id")
        if state not in (BatchState.CANCELLING, BatchState.CANCELLED):
            raise Conflict(f"the batch is {state} and cannot be cancelled any more")
        return
    connection.execute(_SHARDS, {"id": batch_id})
    connection.execute(_JOBS, {"id": batch_id})
    wake(connection)
