"""The log of the fleet: every decision of the autoscaler and what came of it, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.fleet.decision import Action, Decision
from ponder.fleet.provider import Pool

_ADD = text("""
    INSERT INTO fleet_decisions (action, model, machine, market, worker, reason)
    VALUES (:action, :model, :machine, :market, CAST(:worker AS text), :reason)
""")

_READ = text("""
    SELECT id, at, action, model, machine, market, worker, reason FROM fleet_decisions
    WHERE at > coalesce(CAST(:since AS timestamptz), '-infinity')
      AND (CAST(:before AS bigint) IS NULL OR id < :before)
    ORDER BY id DESC LIMIT :limit
""")

_PRUNE = text("DELETE FROM fleet_decisions WHERE at < clock_timestamp() - interval '90 days'")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A row of the log; `id` grows with time."""

    id: int
    at: datetime
    decision: Decision


def log_decision(connection: Connection, decision: Decision) -> None:
    """Adds an entry with Postgres's time."""
    pool = decision.pool
    values = {"action": decision.action.value, "model": pool.model, "machine": pool.machine, "market": pool.market}
    connection.execute(_ADD, values | {"worker": decision.worker, "reason": decision.reason})


def read_log(
    connection: Connection, *, limit: int, since: datetime | None = None, before: int | None = None
) -> list[LogEntry]:
    """Returns the newest entries first, those after `since` and with ids below `before`."""
    rows = connection.execute(_READ, {"limit": limit, "since": since, "before": before})
    return [
        LogEntry(
            row.id,
            row.at,
            Decision(Action(row.action), Pool(row.model, row.machine, row.market), row.reason, row.worker),
        )
        for row in rows
    ]


def prune_log(connection: Connection) -> None:
    """Deletes entries of more than 90 days ago."""
    connection.execute(_PRUNE)
