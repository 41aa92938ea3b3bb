"""Checks that the results of a batch are still there."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.errors import Gone
from ponder.store.retention import EXPIRED_AT

_EXPIRED = text(f"SELECT {EXPIRED_AT} AS at FROM batches WHERE id = :batch_id AND tenant_id = :tenant_id")


def check_kept(connection: Connection, tenant_id: str, batch_id: str) -> None:
    """Raises Gone if the results of a batch have expired.

    Call it after reading them: nothing is deleted before it raises, so what was read is whole.
    """
    at = connection.execute(_EXPIRED, {"tenant_id": tenant_id, "batch_id": batch_id}).scalar()
    if at is not None:
        raise Gone(f"the results of {batch_id} expired on {at:%Y-%m-%d at %H:%M:%S %Z} and were deleted")
