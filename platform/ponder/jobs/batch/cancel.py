"""Stops a batch."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain.state import BatchState, sources
from ponder.errors import Conflict, NotFound
from ponder.jobs.wake import wake

_CANCEL = text(
    """
    UPDATE batches SET state = 'cancelling', cancelling_at = clock_timestamp(), followed_line = 0
    WHERE id = :id AND tenant_id = :tenant_id AND state = ANY(CAST(:sources AS text[]))
    """
)
_STATE = text("SELECT state FROM batches WHERE id = :id AND tenant_id = :tenant_id")


def cancel(connection: Connection, tenant_id: str, batch_id: str) -> None:
    """Cancels a batch: no more of its jobs begin, workers drop theirs at the next tick, and settled jobs stay settled.

    Takes as long for a million jobs as for one, because the batch's state counts and `follow` updates the rows later.
    Does nothing to a batch that is cancelled or being cancelled. Raises NotFound, and Conflict for a batch that has
    ended in another way.
    """
    cancelled = connection.execute(
        _CANCEL, {"id": batch_id, "tenant_id": tenant_id, "sources": sources(BatchState.CANCELLING)}
    )
    if cancelled.rowcount == 0:
        state = connection.execute(_STATE, {"id": batch_id, "tenant_id": tenant_id}).scalar()
        if state is None:
            raise NotFound(f"there is no batch {batch_id}", param="batch_id")
        if state not in (BatchState.CANCELLING, BatchState.CANCELLED):
            raise Conflict(f"the batch is {state} and can no longer be cancelled")
        return
    wake(connection)
