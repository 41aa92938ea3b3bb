"""Cleaning up after the dead: lapsed leases and lost messages."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Swept:
    incarnations: tuple[str, ...]
    num_jobs_handed_on: int
    num_jobs_failed: int


def sweep(connection: Connection, *, shard_tokens: int) -> Swept:
    """Ends incarnations past their lease: bill closed at the lease's end as `lost`, their jobs cut into new shards.

    A job lost twice gets a shard alone; lost three times it fails as `worker_lost`.
    """
    raise NotImplementedError
