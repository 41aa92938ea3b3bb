"""Changes a batch that has not ended: its budget, pause, pilot, priority and completion window."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from ponder.domain.batch.submission import Change
from ponder.domain.batch.window import window_s
from ponder.domain.state import BatchState
from ponder.errors import Conflict, InvalidInput, NotFound
from ponder.jobs.piloting.pilot import confirm
from ponder.jobs.wake import wake

_OPEN = (BatchState.VALIDATING, BatchState.IN_PROGRESS)

_FIND = text("""
    SELECT id, state, lane, created_at, expires_at, completion_window, limit_tokens, limit_nanodollars, paused_at,
           clock_timestamp() AS now
    FROM batches WHERE id = :id AND tenant_id = :tenant_id FOR NO KEY UPDATE
""")

# The next round of the dispatcher finds out whether another budget is exhausted too.
_CHANGE = text("""
    UPDATE batches SET lane = :lane, completion_window = :completion_window,
        expires_at = created_at + make_interval(secs => CAST(:window_s AS float8)),
        limit_tokens = CAST(:limit_tokens AS bigint), limit_nanodollars = CAST(:limit_nanodollars AS bigint),
        paused_at = CASE WHEN CAST(:is_paused AS boolean) THEN coalesce(paused_at, clock_timestamp()) END,
        exhausted_at = CASE WHEN limit_tokens IS NOT DISTINCT FROM CAST(:limit_tokens AS bigint)
                             AND limit_nanodollars IS NOT DISTINCT FROM CAST(:limit_nanodollars AS bigint)
                            THEN exhausted_at END
    WHERE id = :id AND tenant_id = :tenant_id
    RETURNING expires_at > clock_timestamp() AS is_ahead
""")

_MOVE_QUEUED = text("""
    UPDATE shards SET lane = :lane
    WHERE id IN (
        SELECT id FROM shards
        WHERE batch_id = :id AND tenant_id = :tenant_id AND state = 'queued' AND published_at IS NULL
        ORDER BY id FOR NO KEY UPDATE
    )
""")


def change(connection: Connection, tenant_id: str, batch_id: str, wanted: Change) -> None:
    """Changes what the request names and leaves the rest. The same change may be repeated.

    Running jobs of a batch that may spend no more, or is paused, are handed back at their workers' next ticks.
    Raises NotFound, Conflict for a batch that has ended or is being cancelled and for a pilot without an estimate, and
    InvalidInput for a window that would already be over.
    """
    batch = connection.execute(_FIND, {"id": batch_id, "tenant_id": tenant_id}).first()
    if batch is None:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
    if batch.state not in _OPEN:
        raise Conflict(f"the batch is {batch.state} and can no longer be changed")
    if wanted.ponder.priority is not None and batch.state == BatchState.VALIDATING:
        raise Conflict("the batch's input file is still being read: its priority can be changed after that")
    window = wanted.completion_window or batch.completion_window
    values: dict[str, Any] = {
        "id": batch_id,
        "tenant_id": tenant_id,
        "lane": wanted.ponder.priority or batch.lane,
        "completion_window": window,
        "window_s": window_s(window),
        "is_paused": batch.paused_at is not None if wanted.ponder.paused is None else wanted.ponder.paused,
        **wanted.ponder.limits(batch.limit_tokens, batch.limit_nanodollars),
    }
    if not connection.execute(_CHANGE, values).scalar_one() and wanted.completion_window is not None:
        raise InvalidInput(
            f"completion_window: {window} after the batch's submission is already over",
            param="completion_window",
            code="invalid_completion_window",
        )
    if wanted.ponder.pilot is not None:
        confirm(connection, batch_id)
    if wanted.ponder.priority is not None:
        connection.execute(_MOVE_QUEUED, values)
    wake(connection)
