"""Handing everything back before leaving."""

from __future__ import annotations

from sqlalchemy import Connection


def release(connection: Connection, incarnation_id: str, *, reason: str, shard_tokens: int) -> int:
    """After the last tick: attempts end preempted, unsettled jobs are cut into new shards, the bill is closed.

    Returns how many jobs were handed back. Raises LeaseLost; then the sweep does all this.
    """
    raise NotImplementedError
