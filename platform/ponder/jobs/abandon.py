"""Giving up a lease before its time."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.jobs.wake import wake


def abandon(connection: Connection, incarnation_id: str, *, reason: str) -> None:
    """The worker has lost its engine and can hand nothing back: its lease ends now, and the sweep does the rest.

    No outage of Postgres excuses this: it counts as a loss.
    """
    connection.execute(
        text(
            "UPDATE incarnations SET lease_until = LEAST(lease_until, clock_timestamp()), end_reason = :reason"
            " WHERE id = :id AND state <> 'ended'"
        ),
        {"id": incarnation_id, "reason": reason},
    )
    wake(connection)
