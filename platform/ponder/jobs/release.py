"""Handing everything back before leaving."""

from __future__ import annotations

from sqlalchemy import Connection

from ponder.domain.cost import CostKind
from ponder.domain.state import AttemptOutcome
from ponder.jobs.incarnation import end, hold
from ponder.jobs.recut import recut
from ponder.jobs.wake import wake
from ponder.ledger.book import book


def release(connection: Connection, incarnation_id: str, *, reason: str, shard_tokens: int) -> int:
    """After the last tick: attempts end preempted, unsettled jobs are cut into new shards, the bill is closed.

    Returns how many jobs were handed back. Raises LeaseLost; then the sweep does all this.
    """
    incarnation = hold(connection, incarnation_id)
    now = incarnation.now
    book(connection, incarnation, now, overhead=CostKind.DRAINING)
    handed = recut(connection, incarnation_id, now, outcome=AttemptOutcome.PREEMPTED, shard_tokens=shard_tokens)
    end(connection, incarnation, now, reason)
    wake(connection)
    return handed.num_handed_on + handed.num_failed
