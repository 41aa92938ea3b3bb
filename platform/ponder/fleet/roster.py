"""The rows of the workers that the autoscaler has ordered, which are all that it remembers of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy import Row as SqlRow

from ponder.domain.money import bill
from ponder.fleet.decision import Failures
from ponder.fleet.problem import LOADING_S
from ponder.fleet.provider import Order, Pool
from ponder.fleet.worker_state import Phase, Worker

# An incarnation belongs to the row by its name. One that ended before the order was an earlier row's.
_OPEN = text(f"""
    SELECT fleet_workers.*, incarnation.id AS incarnation_id, incarnation.state,
           incarnation.ended_at AS left_at, incarnation.end_reason,
           coalesce(fleet_workers.leave_by, incarnation.drain_until) AS last_moment,
           coalesce(incarnation.nanodollars_per_hour, fleet_workers.nanodollars_per_hour) AS price, busy_since,
           CAST(coalesce(extract(epoch FROM fleet_workers.ready_at - fleet_workers.ordered_at), loaded.seconds,
                         {LOADING_S}) AS float8) AS loading_s
    FROM fleet_workers
    LEFT JOIN LATERAL (
        SELECT * FROM incarnations
        WHERE incarnations.worker = fleet_workers.worker AND (incarnations.ended_at IS NULL OR started_at >= ordered_at)
        ORDER BY started_at DESC LIMIT 1
    ) AS incarnation ON true
    LEFT JOIN LATERAL (
        SELECT min(started_at) AS busy_since FROM attempts
        WHERE incarnation_id = incarnation.id AND attempts.ended_at IS NULL
    ) AS work ON true
    LEFT JOIN LATERAL (
        SELECT extract(epoch FROM ready_at - ordered_at) AS seconds FROM fleet_workers AS earlier
        WHERE ready_at IS NOT NULL
          AND (model, machine, market) = (fleet_workers.model, fleet_workers.machine, fleet_workers.market)
        ORDER BY ordered_at DESC LIMIT 1
    ) AS loaded ON true
    WHERE fleet_workers.ended_at IS NULL
    ORDER BY ordered_at, fleet_workers.id
""")

# A worker of ours whose row has ended may be in its lease for a while, although it is dead.
_FOREIGN = text("""
    SELECT model, machine, market, state, started_at, nanodollars_per_hour FROM incarnations
    WHERE state <> 'ended' AND lease_until > clock_timestamp()
      AND NOT EXISTS (SELECT FROM fleet_workers WHERE fleet_workers.worker = incarnations.worker)
    ORDER BY started_at
""")

_STARTING = text("""
    SELECT EXISTS (
        SELECT FROM fleet_workers WHERE model = :model AND ready_at IS NULL AND stop_at IS NULL AND ended_at IS NULL
    )
""")

_PAST = text("""
    SELECT model, machine, market, ordered_at, ready_at, ended_at, has_failed FROM fleet_workers
    WHERE ordered_at > clock_timestamp() - interval '1 day' ORDER BY ordered_at DESC
""")

_FORMER = text("""
    SELECT DISTINCT ON (worker) id, worker, handle, model, machine, market FROM fleet_workers
    WHERE worker = ANY(CAST(:names AS text[])) ORDER BY worker, ordered_at DESC
""")

_PRUNE = text("DELETE FROM fleet_workers WHERE ended_at < clock_timestamp() - interval '90 days'")

_ADD = text("""
    INSERT INTO fleet_workers (id, model, machine, market, worker, nanodollars_per_hour)
    VALUES (:id, :model, :machine, :market, CAST(:worker AS text), :price)
""")


@dataclass(frozen=True, slots=True)
class Row:
    """An ordered worker that has not ended.

    state and what follows it are its incarnation's, or None before it has registered. loading_s: the time from its
    order until it was ready, or else that of the pool's last worker. The other columns are explained in the table.
    """

    id: str
    pool: Pool
    worker: str | None
    handle: str | None
    ordered_at: datetime
    nanodollars_per_hour: int
    told_at: datetime | None
    seen_at: datetime | None
    ready_at: datetime | None
    leave_by: datetime | None
    stop_at: datetime | None
    stopped_at: datetime | None
    has_failed: bool
    num_tries: int
    retry_at: datetime | None
    incarnation_id: str | None
    state: str | None
    left_at: datetime | None
    end_reason: str | None
    last_moment: datetime | None
    busy_since: datetime | None
    loading_s: float

    @property
    def phase(self) -> Phase:
        if self.stop_at is not None:
            return Phase.STOPPING
        if self.state is None:
            return Phase.STARTING
        if self.state == "ended":
            return Phase.STOPPING
        return Phase(self.state) if self.last_moment is None else Phase.DRAINING

    @property
    def is_untold(self) -> bool:
        """Whether it is an order of an autoscaler that died before it heard the provider's answer."""
        return self.told_at is None and self.stop_at is None

    def order(self, num_workers: int) -> Order:
        return Order(self.id, self.pool, num_workers, self.worker, self.handle)

    def as_worker(self, now: datetime) -> Worker:
        loading = bill(self.ordered_at, self.ready_at or now, self.nanodollars_per_hour)
        work = bill(self.busy_since, now, self.nanodollars_per_hour) if self.busy_since is not None else 0
        return Worker(
            self.id,
            self.pool,
            self.phase,
            self.ordered_at,
            self.nanodollars_per_hour,
            is_busy=self.busy_since is not None,
            loss_nanodollars=loading + work,
            loading_s=self.loading_s,
            leave_by=self.last_moment,
        )


_SAME = [field.name for field in fields(Row) if field.name not in ("pool", "nanodollars_per_hour")]
"""The fields that are called like their columns."""


def open_rows(connection: Connection) -> list[Row]:
    """Returns all rows that have not ended, in the order of their orders."""
    return [
        Row(pool=_pool(row), nanodollars_per_hour=row.price, **{name: row._mapping[name] for name in _SAME})
        for row in connection.execute(_OPEN)
    ]


def is_starting(connection: Connection, model: str) -> bool:
    """Returns whether a worker of a model was ordered that is not ready yet."""
    return bool(connection.execute(_STARTING, {"model": model}).scalar_one())


def foreign_workers(connection: Connection) -> list[Worker]:
    """Returns the living workers that somebody else started."""
    return [
        Worker(None, _pool(row), Phase(row.state), row.started_at, row.nanodollars_per_hour)
        for row in connection.execute(_FOREIGN)
    ]


def past(connection: Connection) -> tuple[dict[Pool, datetime], dict[Pool, Failures]]:
    """Returns each pool's last start, and its failures since a worker of it became ready."""
    last_starts: dict[Pool, datetime] = {}
    failures: dict[Pool, Failures] = {}
    proven: set[Pool] = set()
    for row in connection.execute(_PAST):  # the newest first
        pool = _pool(row)
        last_starts.setdefault(pool, row.ordered_at)
        if row.ready_at is not None:
            proven.add(pool)
        elif row.has_failed and pool not in proven:
            failed_at = row.ended_at or row.ordered_at
            known = failures.get(pool, Failures(0, failed_at))
            failures[pool] = Failures(known.num + 1, max(known.last_at, failed_at))
    return last_starts, failures


def recent_pools(connection: Connection) -> set[Pool]:
    """Returns the pools of the last day's orders, where the provider may still have something."""
    return set(past(connection)[0])


def former_orders(connection: Connection, names: Collection[str]) -> dict[str, Order]:
    """Returns the orders of those workers that were ever ordered, by their names."""
    rows = connection.execute(_FORMER, {"names": list(names)})
    return {row.worker: Order(row.id, _pool(row), 0, row.worker, row.handle) for row in rows}


def prune(connection: Connection) -> None:
    """Deletes the rows of workers that ended more than 90 days ago."""
    connection.execute(_PRUNE)


def add(connection: Connection, order: Order, nanodollars_per_hour: int) -> None:
    pool = {"model": order.pool.model, "machine": order.pool.machine, "market": order.pool.market}
    values = pool | {"id": order.id, "worker": order.worker, "price": nanodollars_per_hour}
    connection.execute(_ADD, values)


def told(connection: Connection, id: str, handle: str | None) -> None:
    """Records that the provider has taken the order."""
    _update(connection, id, "told_at = clock_timestamp(), handle = CAST(:handle AS text)", handle=handle)


def seen(connection: Connection, id: str, worker: str) -> None:
    """Records that the provider has the worker, and its name."""
    _update(connection, id, "seen_at = clock_timestamp(), worker = :worker", worker=worker)


def became_ready(connection: Connection, id: str) -> None:
    _update(connection, id, "ready_at = clock_timestamp()")


def draining(connection: Connection, id: str, within_s: float) -> None:
    _update(connection, id, "leave_by = clock_timestamp() + :within_s * interval '1 second'", within_s=within_s)


def to_be_stopped(connection: Connection, id: str, *, has_failed: bool) -> None:
    _update(connection, id, "stop_at = clock_timestamp(), has_failed = :has_failed", has_failed=has_failed)


def stopped(connection: Connection, id: str, *, again_in_s: float) -> None:
    """Records that the provider stops the worker. If it still has it after `again_in_s`, it is asked again."""
    again = "retry_at = clock_timestamp() + :again_in_s * interval '1 second'"
    _update(connection, id, f"stopped_at = clock_timestamp(), {again}", again_in_s=again_in_s)


def not_stopped(connection: Connection, id: str, *, again_in_s: float) -> None:
    again = "retry_at = clock_timestamp() + :again_in_s * interval '1 second'"
    _update(connection, id, f"num_tries = num_tries + 1, {again}", again_in_s=again_in_s)


def ended(connection: Connection, id: str, *, has_failed: bool) -> None:
    _update(
        connection, id, "ended_at = clock_timestamp(), has_failed = has_failed OR :has_failed", has_failed=has_failed
    )


def num_of_pool(rows: Iterable[Row], pool: Pool) -> int:
    """Returns how many workers the provider is to have: those that it was not told to stop, or could not."""
    return sum(row.pool == pool and row.stopped_at is None for row in rows)


def now(connection: Connection) -> datetime:
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def _update(connection: Connection, id: str, assignments: str, **values: object) -> None:
    connection.execute(text(f"UPDATE fleet_workers SET {assignments} WHERE id = :id"), {"id": id} | values)


def _pool(row: SqlRow[Any]) -> Pool:
    return Pool(row.model, row.machine, row.market)
