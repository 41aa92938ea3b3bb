"""One life of one worker process: from its first sign to its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ponder.domain.state import IncarnationState


@dataclass(frozen=True, slots=True)
class Incarnation:
    """The row as it is under our lock; `now` is Postgres's clock after the lock was had."""

    id: str
    model: str
    fingerprint: str | None
    state: IncarnationState
    nanodollars_per_hour: int
    num_ticks: int
    started_at: datetime
    lease_until: datetime
    billed_until: datetime
    now: datetime


def register(
    connection: Connection,
    *,
    id: str,
    worker: str,
    host: str,
    pid: int,
    model: str,
    machine: str,
    market: str,
    lease_s: float,
) -> None:
    """Its bill begins now, at the price in force. Raises UnknownMachine, which names the known ones."""
    raise NotImplementedError


def ready(
    connection: Connection,
    id: str,
    *,
    fingerprint: str,
    context_length: int,
    has_reward_model: bool,
    room_tokens: int,
) -> None:
    """The weights are loaded: jobs may come, and the model is known from now on. Raises LeaseLost."""
    raise NotImplementedError


def drain(connection: Connection, id: str) -> None:
    """Nothing more is claimed by it. Raises LeaseLost."""
    raise NotImplementedError


def hold(connection: Connection, id: str) -> Incarnation:
    """The fence: locks the row until the transaction ends. Raises LeaseLost unless it is alive by Postgres's clock.

    Every write of a worker begins with it. Whoever locks more takes locks in this order: incarnation, batch,
    portion, shards by id, jobs by id.
    """
    raise NotImplementedError
