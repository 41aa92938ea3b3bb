"""Ends a worker's lease before its time: everything is handed back, or the lease is given up."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain.cost import CostKind
from ponder.domain.state import AttemptOutcome
from ponder.jobs.incarnation import end, hold
from ponder.jobs.recut import recut
from ponder.jobs.wake import wake
from ponder.ledger.book import book


def release(connection: Connection, incarnation_id: str, *, reason: str, shard_tokens: int) -> int:
    """Releases an incarnation after its last tick: ends attempts as preempted, recuts jobs and closes the bill.

    Returns how many jobs were handed back. Raises LeaseLost, and then the sweep does all this.
    """
    incarnation = hold(connection, incarnation_id)
    now = incarnation.now
    book(connection, incarnation, now, overhead=CostKind.DRAINING)
    handed = recut(connection, incarnation_id, now, outcome=AttemptOutcome.PREEMPTED, shard_tokens=shard_tokens)
    end(connection, incarnation, now, reason)
    wake(connection)
    return handed.num_handed_on


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
