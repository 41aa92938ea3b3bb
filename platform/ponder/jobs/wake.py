"""Wakes the dispatcher."""

from __future__ import annotations

from sqlalchemy import Connection, text

CHANNEL = "ponder"

_NOTIFY = text(f"NOTIFY {CHANNEL}")


def wake(connection: Connection) -> None:
    """Makes the dispatcher do a round as soon as this transaction commits."""
    connection.execute(_NOTIFY)
