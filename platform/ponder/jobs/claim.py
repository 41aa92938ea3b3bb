"""Taking the jobs of a shard, exactly one incarnation each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """`deltas` are all saved deltas of its tree in the order of their making."""

    job_id: int
    tenant_id: str
    batch_id: str
    request: dict[str, Any]
    deltas: list[dict[str, Any]]
    expires_at: datetime
    """When its batch expires."""
    deadline_at: datetime | None
    """From its own budget."""
    num_lost: int
    """How many incarnations died with it."""


@dataclass(frozen=True, slots=True)
class Claim:
    shard_id: int
    jobs: tuple[ClaimedJob, ...]


def claim(connection: Connection, shard_id: int, incarnation_id: str) -> Claim | None:
    """Makes the incarnation the holder of a queued shard and opens an attempt for each of its pending jobs.

    None when there is nothing to do: a duplicate message, a shard that is gone or has no pending job left, or one that
    this incarnation may not have (other weights, or it is draining; such a shard is published again at once).
    Raises LeaseLost.
    """
    raise NotImplementedError
