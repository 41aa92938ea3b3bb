"""The life of one worker process, from its registration to its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.domain.incarnation import Incarnation
from ponder.domain.state import IncarnationState, move
from ponder.errors import LeaseLost
from ponder.jobs.wake import wake
from ponder.ledger.book import book
from ponder.ledger.price_book import price_at

__all__ = ["Incarnation", "end", "hold", "ready", "register"]

# Whatever runs a worker may restart it after it has left, as a Deployment does with every container. Where the
# autoscaler has asked it to leave, or is about to see that it has left, it leaves again before it loads its model.
_REGISTER = text("""
    INSERT INTO incarnations (id, worker, host, pid, model, machine, market, nanodollars_per_hour,
                              started_at, lease_until, billed_until, drain_until)
    SELECT :id, :worker, :host, :pid, :model, :machine, :market, :nanodollars_per_hour,
           now, now + :lease_s * interval '1 second', now, CASE WHEN is_leaving THEN now END
    FROM clock_timestamp() AS now, LATERAL (
        SELECT EXISTS (
            SELECT FROM fleet_workers
            WHERE worker = :worker AND ended_at IS NULL AND (
                leave_by IS NOT NULL OR stop_at IS NOT NULL OR EXISTS (
                    SELECT FROM incarnations AS former
                    WHERE former.worker = :worker AND started_at >= ordered_at
                      AND former.ended_at > now - interval '1 minute'
                )
            )
        ) AS is_leaving
    ) AS fleet
""")

# The clock is read outside the locking subquery, because inside it would show the time before the wait.
_HOLD = text("""
    WITH held AS MATERIALIZED (SELECT * FROM incarnations WHERE id = :id FOR NO KEY UPDATE)
    SELECT id, model, fingerprint, state, nanodollars_per_hour, num_ticks, started_at, lease_until, billed_until,
           drain_until, greatest(clock_timestamp(), billed_until) AS now
    FROM held
""")

# Spared is a lease that ran out in an outage or in the grace after it, or since whose end nobody has been able to
# write. An incarnation that was given up is not spared.
_SPARE = text("""
    UPDATE incarnations SET lease_until = clock_timestamp() + lease_s * interval '1 second' FROM pulse
    WHERE id = :id AND end_reason IS NULL AND (
        (lease_until BETWEEN outage_from AND grace_until AND clock_timestamp() < grace_until)
        OR (lease_until >= beat_at AND clock_timestamp() - beat_at > lease_s / 2 * interval '1 second')
    )
    RETURNING lease_until
""")

_READY = text("""
    UPDATE incarnations SET state = :state, fingerprint = :fingerprint, room_tokens = :room_tokens WHERE id = :id
""")

_MODEL = text("""
    INSERT INTO models (name, fingerprint, context_length, has_reward_model)
    VALUES (:name, :fingerprint, :context_length, :has_reward_model)
    ON CONFLICT (name, fingerprint) DO UPDATE
    SET context_length = excluded.context_length, has_reward_model = excluded.has_reward_model,
        last_seen_at = clock_timestamp()
""")

_END = text("""
    WITH counted AS (
        INSERT INTO counter_tallies (counter, label, amount)
        SELECT 'preempted', why, 1 FROM substring(
            CAST(:reason AS text)
            FROM '^((aws|gcp|azure)( [a-z]+)? (notice|recommendation)|SIGTERM|SIGINT|its lease expired)'
        ) AS why
        WHERE why IS NOT NULL
    )
    UPDATE incarnations SET state = :state, ended_at = :at, end_reason = :reason, room_tokens = 0 WHERE id = :id
""")


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
    """Registers a worker process. Its bill begins now, at the price in force.

    One that comes back under the name of a worker of the autoscaler that has left or has to is asked to leave at once.
    Raises UnknownMachine, which names the known machines.
    """
    price = price_at(connection, machine, market).nanodollars_per_hour
    values = {"id": id, "worker": worker, "host": host, "pid": pid, "model": model, "machine": machine}
    connection.execute(_REGISTER, values | {"market": market, "nanodollars_per_hour": price, "lease_s": lease_s})


def ready(
    connection: Connection,
    id: str,
    *,
    fingerprint: str,
    context_length: int,
    has_reward_model: bool,
    room_tokens: int,
) -> None:
    """Records that the weights are loaded, so that jobs may come. The model is known from now on. Raises LeaseLost.

    Does nothing the second time, because the answer to the first commit may have been lost.
    """
    incarnation = hold(connection, id)
    if incarnation.state is IncarnationState.READY and incarnation.fingerprint == fingerprint:
        return
    state = move(incarnation.state, IncarnationState.READY)
    book(connection, incarnation, incarnation.now, overhead=incarnation.overhead)
    connection.execute(_READY, {"id": id, "state": state.value, "fingerprint": fingerprint, "room_tokens": room_tokens})
    model = {"name": incarnation.model, "fingerprint": fingerprint, "context_length": context_length}
    connection.execute(_MODEL, model | {"has_reward_model": has_reward_model})
    wake(connection)


def hold(connection: Connection, id: str) -> Incarnation:
    """Locks the row until the transaction ends: the fence. Raises LeaseLost unless it is alive by Postgres's clock.

    A lease that ran out during an outage of Postgres, or in the grace of one lease after it, is extended here unless
    the sweep has already ended it. Every write of a worker begins with this call. Transactions that lock more take
    locks in this order: incarnation, tenant, batch, portion, shards by id, jobs by id.
    """
    row = connection.execute(_HOLD, {"id": id}).one_or_none()
    if row is None:
        raise LeaseLost(f"there is no incarnation {id}")
    incarnation = Incarnation(**{**row._mapping, "state": IncarnationState(row.state)})
    if incarnation.state is IncarnationState.ENDED:
        raise LeaseLost(f"{id} has ended")
    if incarnation.lease_until > incarnation.now:
        return incarnation
    lease_until = connection.execute(_SPARE, {"id": id}).scalar()
    if lease_until is None:
        raise LeaseLost(f"the lease of {id} ended at {incarnation.lease_until.isoformat()}")
    return replace(incarnation, lease_until=lease_until)


def end(connection: Connection, incarnation: Incarnation, at: datetime, reason: str) -> None:
    """Writes the end of a held incarnation, after its bill was closed at `at`."""
    state = move(incarnation.state, IncarnationState.ENDED)
    connection.execute(_END, {"id": incarnation.id, "state": state.value, "at": at, "reason": reason})
