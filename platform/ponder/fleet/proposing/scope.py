"""The scope of an autoscaler's plans. That of the active one is kept in Postgres, where the API reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text

from ponder.fleet.problem import Bounds

Place = tuple[str, str]
"""A machine of the price book, and its market."""

LEADER = 0x666C656574  # "fleet"
"""The advisory lock of the active autoscaler."""
_HOLDER = """
    SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE datname = current_database() AND locktype = 'advisory' AND granted
      AND CAST(classid AS bigint) = :high AND CAST(objid AS bigint) = :low AND objsubid = 1
"""
_KEY = {"high": LEADER >> 32, "low": LEADER & 0xFFFFFFFF}
_IS_ACTIVE = text(f"SELECT EXISTS ({_HOLDER})")

_RECORD = text("""
    INSERT INTO fleet_scope (pid, models, min_workers, max_workers, max_nanodollars_per_hour, named, offered)
    VALUES (pg_backend_pid(), CAST(:models AS jsonb), :min_workers, CAST(:max_workers AS integer),
            CAST(:max_nanodollars_per_hour AS bigint), CAST(:named AS jsonb), CAST(:offered AS jsonb))
    ON CONFLICT (is_only) DO UPDATE SET
        pid = excluded.pid, models = excluded.models, min_workers = excluded.min_workers,
        max_workers = excluded.max_workers, max_nanodollars_per_hour = excluded.max_nanodollars_per_hour,
        named = excluded.named, offered = excluded.offered
""")

# What an autoscaler left that is gone is not read: another one has the lock, on another connection.
_READ = text(f"SELECT fleet_scope.* FROM fleet_scope WHERE pid IN ({_HOLDER})")


@dataclass(frozen=True, slots=True)
class Scope:
    """The limits that an autoscaler plans within.

    models: those that it looks after; none means all that are known. bounds: the minimum holds for each model, the
    others for all together. named: the machines that the operator named; no other is started for a model that was never
    timed there, because it may not fit. offered: those of the price book that may be started.
    """

    models: tuple[str, ...]
    bounds: Bounds
    named: frozenset[Place]
    offered: frozenset[Place]

    def covers(self, model: str) -> bool:
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The model that is asked about, or all, and what goes before the active autoscaler's own options."""

    model: str | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    max_nanodollars_per_hour: int | None = None
    machines: frozenset[Place] | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the answer may differ from what the active autoscaler acts on."""
        return any(option is not None for option in (*self._limits.values(), self.machines))

    @property
    def _limits(self) -> dict[str, int | None]:
        return {
            "min_workers": self.min_workers,
            "max_workers": self.max_workers,
            "max_nanodollars_per_hour": self.max_nanodollars_per_hour,
        }

    def bounds(self, own: Bounds) -> Bounds:
        """Returns bounds with those that were given. Raises InvalidInput if they contradict each other."""
        return replace(own, **{name: limit for name, limit in self._limits.items() if limit is not None})

    def scope(self, own: Scope, places: frozenset[Place]) -> Scope:
        """Returns a scope with what was given."""
        machines = own.named if self.machines is None else self.machines
        offered = own.offered if self.machines is None else self.machines & places
        return Scope(own.models, self.bounds(own.bounds), machines, offered)


def is_active(connection: Connection) -> bool:
    """Returns whether some autoscaler holds the lock."""
    return bool(connection.execute(_IS_ACTIVE, _KEY).scalar_one())


def record_scope(connection: Connection, scope: Scope) -> None:
    """Records the scope of the autoscaler that holds the lock on this connection."""
    bounds = scope.bounds
    values = {
        "models": json.dumps(scope.models),
        "min_workers": bounds.min_workers,
        "max_workers": bounds.max_workers,
        "max_nanodollars_per_hour": bounds.max_nanodollars_per_hour,
        "named": json.dumps(sorted(scope.named)),
        "offered": json.dumps(sorted(scope.offered)),
    }
    connection.execute(_RECORD, values)


def active_scope(connection: Connection) -> Scope | None:
    """Returns the scope of the active autoscaler, or None while there is none or it has not planned yet."""
    row = connection.execute(_READ, _KEY).one_or_none()
    if row is None:
        return None
    bounds = Bounds(row.min_workers, row.max_workers, row.max_nanodollars_per_hour)
    return Scope(tuple(row.models), bounds, _places(row.named), _places(row.offered))


def _places(rows: Iterable[tuple[str, str]]) -> frozenset[Place]:
    return frozenset((machine, market) for machine, market in rows)
