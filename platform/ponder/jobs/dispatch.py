"""From waiting jobs to a window of shards, fair between tenants."""

from __future__ import annotations

from sqlalchemy import Connection

from ponder.queue.app import Message


def dispatch(connection: Connection, *, shard_tokens: int) -> list[Message]:
    """Cuts and marks what should be in Redis now; the caller publishes it after the commit."""
    raise NotImplementedError
