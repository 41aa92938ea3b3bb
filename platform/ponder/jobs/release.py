"""Hands everything back before a worker leaves."""

from __future__ import annotations

from sqlalchemy import Connection

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
    return handed.num_handed_on + handed.num_failed
