"""Cleans up after dead workers: lapsed leases and lost messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ponder.domain.cost import CostKind
from ponder.domain.incarnation import Incarnation
from ponder.domain.state import AttemptOutcome, IncarnationState
from ponder.jobs.incarnation import end
from ponder.jobs.recut import recut
from ponder.jobs.wake import wake
from ponder.ledger.book import book
from ponder.queue.celery_app import Message, queue_name

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """One dead incarnation, and what happened to its jobs."""

    incarnation_id: str
    num_jobs_handed_on: int
    num_jobs_failed: int


# Nothing is swept before the pulse is back and has recorded the outage, or in the grace after one (see
# `incarnation.hold`).
_LAPSING = """
    incarnations LEFT JOIN pulse ON true CROSS JOIN LATERAL (
        SELECT end_reason IS NULL AND coalesce(lease_until BETWEEN outage_from AND grace_until, false) AS is_spared
    ) AS outage
    WHERE state <> 'ended' AND lease_until <= clock_timestamp()
      AND coalesce(beat_at >= clock_timestamp() - lease_s / 2 * interval '1 second', true)
      AND NOT (is_spared AND clock_timestamp() < grace_until)
"""

_LAPSED = text(f"SELECT id FROM {_LAPSING} ORDER BY id")

# An incarnation that is ticking right now is skipped: it is not dead, or its tick will be refused.
_HOLD = text(f"""
    SELECT id, model, fingerprint, state, nanodollars_per_hour, num_ticks, started_at, lease_until, billed_until,
           drain_until, greatest(clock_timestamp(), billed_until) AS now, end_reason, is_spared
    FROM {_LAPSING} AND id = :id FOR NO KEY UPDATE OF incarnations SKIP LOCKED
""")

# A message is lost if its queue is empty, or if a shard published later has already been held for a while.
_UNCLAIMED = text("""
    SELECT id, model, fingerprint, lane, EXISTS (
        SELECT FROM shards AS later
        WHERE later.state = 'held' AND later.model = shards.model AND later.fingerprint = shards.fingerprint
          AND later.lane = shards.lane AND later.published_at > shards.published_at
          AND later.held_at < clock_timestamp() - :after_s * interval '1 second'
    ) AS is_overtaken
    FROM shards
    WHERE state = 'queued' AND published_at < clock_timestamp() - :after_s * interval '1 second'
    ORDER BY id
""")

_PUBLISHED = text("""
    UPDATE shards SET published_at = clock_timestamp()
    WHERE id IN (
        SELECT id FROM shards WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'queued' ORDER BY id FOR NO KEY UPDATE
    )
    RETURNING id
""")


def sweep(engine: Engine, *, shard_tokens: int) -> list[Swept]:
    """Ends incarnations past their lease: closes their bill at the lease's end as `lost` and recuts their jobs.

    A job lost twice gets a shard alone, and a job lost three times fails as `worker_lost`. A lease that ran out during
    an outage of Postgres, or in the grace of one lease after it, ends with that grace and counts no loss for its jobs.
    Each incarnation has its own transaction, so that locks on jobs are taken in one order. An error with one of them, a
    lock held by somebody for instance, does not stop the others; the first such error is raised at the end.
    """
    with engine.connect() as connection:
        lapsed = connection.execute(_LAPSED).scalars().all()
    swept: list[Swept] = []
    failures: list[DBAPIError] = []
    for incarnation_id in lapsed:
        try:
            with engine.begin() as connection:
                swept += _sweep_one(connection, incarnation_id, shard_tokens)
        except DBAPIError as error:
            failures.append(error)
    for one in swept:
        _log.warning(
            "worker_died",
            incarnation=one.incarnation_id,
            num_jobs_handed_on=one.num_jobs_handed_on,
            num_jobs_failed=one.num_jobs_failed,
        )
    if failures:
        raise failures[0]
    return swept


def _sweep_one(connection: Connection, incarnation_id: str, shard_tokens: int) -> list[Swept]:
    """Returns an empty list if the incarnation is not to be swept now."""
    row = connection.execute(_HOLD, {"id": incarnation_id}).one_or_none()
    if row is None:
        return []
    columns = dict(row._mapping) | {"state": IncarnationState(row.state)}
    end_reason, is_spared = columns.pop("end_reason"), columns.pop("is_spared")
    incarnation = Incarnation(**columns)
    at = incarnation.lease_until
    book(connection, incarnation, at, overhead=CostKind.LOST)
    outcome = AttemptOutcome.PREEMPTED if is_spared else AttemptOutcome.LOST
    jobs = recut(connection, incarnation.id, at, outcome=outcome, shard_tokens=shard_tokens)
    end(connection, incarnation, at, end_reason or "its lease expired")
    wake(connection)
    return [Swept(incarnation.id, jobs.num_handed_on, jobs.num_failed)]


def lost_messages(
    connection: Connection, lengths: Callable[[Iterable[str]], Mapping[str, int]], *, republish_after_s: float
) -> list[Message]:
    """Returns messages for shards whose message seems lost, marked as published now. The caller publishes them after
    the commit.

    An extra message is harmless, because the second claim gets nothing. `lengths` returns the lengths of queues.
    """
    shards = connection.execute(_UNCLAIMED, {"after_s": republish_after_s}).all()
    if not shards:
        return []
    queues = {row.id: queue_name(row.model, row.fingerprint, row.lane) for row in shards}
    num_waiting = lengths(sorted(set(queues.values())))
    lost = [row.id for row in shards if row.is_overtaken or num_waiting[queues[row.id]] == 0]
    marked = connection.execute(_PUBLISHED, {"ids": lost}).scalars() if lost else ()
    return [Message(shard_id, queues[shard_id]) for shard_id in sorted(marked)]
