"""From waiting jobs to a window of shards, fair between tenants."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from ponder.domain.state import Lane
from ponder.jobs.cut import Source, sources, take
from ponder.queue.app import Message, queue_name

_LOCK = 0x706F6E64
"""Two dispatchers at a time would cut the same jobs twice."""

_Queue = tuple[str, str, str]
"""Model, fingerprint, lane."""


@dataclass(slots=True)
class _Window:
    """What may be in Redis for one queue: about twice what its workers can take, and two shards a worker at least."""

    num_workers: int = 0
    room_tokens: int = 0
    num_shards: int = 0
    num_tokens: int = 0

    @property
    def is_open(self) -> bool:
        return self.num_shards < 2 * max(self.num_workers, 1) or self.num_tokens < 2 * self.room_tokens


@dataclass(slots=True)
class _Tenant:
    """How much of the fleet a tenant has had lately and has now, and what waits for it."""

    id: str
    spent_nanodollars: int = 0
    tokens_in_flight: int = 0
    quota_tokens: int | None = None
    waiting: defaultdict[_Queue, deque[Source]] = field(default_factory=lambda: defaultdict(deque))

    @property
    def turn(self) -> tuple[int, int, str]:
        """The smallest is next."""
        return (self.spent_nanodollars, self.tokens_in_flight, self.id)

    @property
    def is_within_quota(self) -> bool:
        """Whether it may have another shard; the last one may pass the quota."""
        return self.quota_tokens is None or self.tokens_in_flight < self.quota_tokens


# `validate` makes them; this is for jobs that came another way.
_PORTION = text("""
    INSERT INTO portions (batch_id, model, fingerprint, tenant_id, last_line)
    SELECT jobs.batch_id, jobs.model, jobs.fingerprint, jobs.tenant_id, max(jobs.line)
    FROM batches JOIN jobs ON jobs.batch_id = batches.id
    WHERE batches.state = 'in_progress' AND NOT EXISTS (SELECT FROM portions WHERE batch_id = batches.id)
    GROUP BY jobs.batch_id, jobs.model, jobs.fingerprint, jobs.tenant_id
""")

_WORKERS = text("""
    SELECT model, fingerprint, count(*) AS num_workers, CAST(sum(room_tokens) AS bigint) AS room_tokens
    FROM incarnations
    WHERE state = 'ready' AND lease_until > clock_timestamp()
    GROUP BY model, fingerprint
""")

_IN_FLIGHT = text("""
    SELECT tenant_id, model, fingerprint, lane, CAST(sum(estimated_tokens) AS bigint) AS num_tokens,
           count(*) FILTER (WHERE state = 'queued') AS num_queued,
           CAST(coalesce(sum(estimated_tokens) FILTER (WHERE state = 'queued'), 0) AS bigint) AS num_queued_tokens
    FROM shards
    WHERE state = 'held' OR (state = 'queued' AND published_at IS NOT NULL)
    GROUP BY tenant_id, model, fingerprint, lane
""")

_QUOTAS = text("""
    SELECT id, quota_tokens FROM tenants
    WHERE id = ANY(CAST(:tenant_ids AS text[])) AND quota_tokens IS NOT NULL
""")

_SPENT = text("""
    SELECT tenant_id, CAST(sum(nanodollars) AS bigint) AS nanodollars
    FROM ledger_entries
    WHERE until_at > clock_timestamp() - interval '10 minutes' AND tenant_id = ANY(CAST(:tenant_ids AS text[]))
    GROUP BY tenant_id
""")


def dispatch(connection: Connection, *, shard_tokens: int) -> list[Message]:
    """Cuts and marks what should be in Redis now; the caller publishes it after the commit.

    Each queue gets shards while its window is open, interactive ones first. Next is the tenant that cost least in the
    last ten minutes, then the one with the fewest tokens in flight; within a tenant, what was begun, then the oldest.
    A tenant that has as many tokens in flight as its quota says gets none.
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    connection.execute(_PORTION)
    tenants = _tenants(connection)
    if not tenants:
        return []
    windows = _windows(connection, tenants)
    queues = sorted({queue for tenant in tenants.values() for queue in tenant.waiting}, key=_urgency)
    return [
        Message(shard_id, queue_name(*queue))
        for queue in queues
        for shard_id in _fill(connection, queue, windows[queue], list(tenants.values()), shard_tokens)
    ]


def _urgency(queue: _Queue) -> tuple[bool, _Queue]:
    return (queue[2] != Lane.INTERACTIVE, queue)


def _tenants(connection: Connection) -> dict[str, _Tenant]:
    """Those for whom something waits."""
    tenants: dict[str, _Tenant] = {}
    for source in sources(connection):
        tenant = tenants.setdefault(source.tenant_id, _Tenant(source.tenant_id))
        tenant.waiting[source.queue].append(source)
    for row in connection.execute(_QUOTAS, {"tenant_ids": list(tenants)}):
        tenants[row.id].quota_tokens = row.quota_tokens
    if len(tenants) > 1:
        for row in connection.execute(_SPENT, {"tenant_ids": list(tenants)}):
            tenants[row.tenant_id].spent_nanodollars = row.nanodollars
    return tenants


def _windows(connection: Connection, tenants: dict[str, _Tenant]) -> defaultdict[_Queue, _Window]:
    windows: defaultdict[_Queue, _Window] = defaultdict(_Window)
    for row in connection.execute(_WORKERS):
        for lane in Lane:
            window = windows[row.model, row.fingerprint, lane.value]
            window.num_workers, window.room_tokens = row.num_workers, row.room_tokens
    for row in connection.execute(_IN_FLIGHT):
        window = windows[row.model, row.fingerprint, row.lane]
        window.num_shards += row.num_queued
        window.num_tokens += row.num_queued_tokens
        if row.tenant_id in tenants:
            tenants[row.tenant_id].tokens_in_flight += row.num_tokens
    return windows


def _fill(
    connection: Connection, queue: _Queue, window: _Window, tenants: list[_Tenant], shard_tokens: int
) -> Iterator[int]:
    while window.is_open:
        waiting = [tenant for tenant in tenants if tenant.waiting.get(queue) and tenant.is_within_quota]
        if not waiting:
            return
        tenant = min(waiting, key=lambda tenant: tenant.turn)
        shard = take(connection, tenant.waiting[queue], shard_tokens)
        if shard is not None:
            window.num_shards += 1
            window.num_tokens += shard.estimated_tokens
            tenant.tokens_in_flight += shard.estimated_tokens
            yield shard.shard_id
