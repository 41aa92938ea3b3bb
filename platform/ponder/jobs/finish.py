"""The last moves of a batch."""

from __future__ import annotations

from sqlalchemy import Connection


def finish(connection: Connection) -> int:
    """Completes batches without pending jobs, expires late ones, ends cancelled ones; returns how many it moved."""
    raise NotImplementedError
