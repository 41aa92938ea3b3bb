"""Waking the dispatcher."""

from __future__ import annotations

from sqlalchemy import Connection, text

CHANNEL = "ponder"

_NOTIFY = text(f"NOTIFY {CHANNEL}")


def wake(connection: Connection) -> None:
    """The dispatcher looks around as soon as this transaction commits."""
    connection.execute(_NOTIFY)
