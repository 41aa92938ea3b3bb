"""Giving up a lease before its time."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.jobs.wake import wake


def abandon(connection: Connection, incarnation_id: str, *, reason: str) -> None:
    """Ends the lease now, for a worker that lost its engine and can hand nothing back. The sweep does the rest.

    Each of its jobs counts a loss, even during an outage of Postgres.
    """
    connection.execute(
        text(
            "UPDATE incarnations SET lease_until = LEAST(lease_until, clock_timestamp()), end_reason = :reason"
            " WHERE id = :id AND state <> 'ended'"
        ),
        {"id": incarnation_id, "reason": reason},
    )
    wake(connection)
