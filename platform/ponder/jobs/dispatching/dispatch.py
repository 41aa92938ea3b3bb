"""Turns waiting jobs into a window of published shards, fairly between tenants."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from ponder.domain.state import Lane
from ponder.jobs.dispatching.cut import cut, sources
from ponder.jobs.dispatching.order import Source
from ponder.ledger.spending import open_allowances
from ponder.queue.celery_app import Message, queue_name

_LOCK = 0x706F6E64
"""Advisory lock: two dispatchers at a time would cut the same jobs twice."""

_Queue = tuple[str, str, str]
"""Model, fingerprint, lane."""


@dataclass(frozen=True, slots=True)
class LaneShares:
    """Limits on interactive work, which workers take first, so that it does not crowd out all other work."""

    interactive_share: float = 0.75
    """The share of the workers' capacity while work in the other lane waits. One shard is always allowed."""
    interactive_tokens: int = 1_000_000
    """One tenant's interactive tokens in flight. Work beyond this goes into the other lane."""
    interactive_factor: float = 1.0
    """The weight of an interactive nano-dollar when tenants take turns."""


@dataclass(slots=True)
class Window:
    """The bound on one queue in Redis: about twice what its workers can take, and at least two shards per worker."""

    num_workers: int = 0
    room_tokens: int = 0
    num_shards: int = 0
    num_tokens: int = 0
    held_tokens: int = 0
    most_tokens: float | None = None
    """The limit on queued and held tokens while another lane waits."""
    waited_s: float = 0.0
    """Seconds for which its oldest shard has been in Redis."""
    is_paused: bool = False

    @property
    def is_open(self) -> bool:
        in_flight = self.num_tokens + self.held_tokens
        if self.is_paused or (self.most_tokens is not None and in_flight and in_flight >= self.most_tokens):
            return False
        return self.num_shards < 2 * max(self.num_workers, 1) or self.num_tokens < 2 * self.room_tokens


@dataclass(slots=True)
class _Tenant:
    """A tenant's recent and current use of the fleet, and its waiting work."""

    id: str
    interactive_allowance: int
    spent_nanodollars: int = 0
    tokens_in_flight: int = 0
    interactive_tokens: int = 0
    """The interactive part of the tokens in flight."""
    quota_tokens: int | None = None
    waiting: defaultdict[_Queue, deque[Source]] = field(default_factory=lambda: defaultdict(deque))

    @property
    def turn(self) -> tuple[int, int, str]:
        """The sort key of turns: the smallest is next."""
        return (self.spent_nanodollars, self.tokens_in_flight, self.id)

    @property
    def is_within_quota(self) -> bool:
        """Whether it may have another shard. The last shard may exceed the quota."""
        return self.quota_tokens is None or self.tokens_in_flight < self.quota_tokens

    def supply(self, queue: _Queue) -> deque[Source]:
        """Returns the sources that may fill a queue. Interactive work beyond the allowance fills the other lane's."""
        model, fingerprint, lane = queue
        interactive = self.waiting[model, fingerprint, Lane.INTERACTIVE.value]
        is_allowed = self.interactive_tokens < self.interactive_allowance
        if lane == Lane.INTERACTIVE:
            return interactive if is_allowed else deque()
        return interactive if interactive and not is_allowed else self.waiting[queue]

    def take(self, queue: _Queue, estimated_tokens: int) -> None:
        self.tokens_in_flight += estimated_tokens
        if queue[2] == Lane.INTERACTIVE:
            self.interactive_tokens += estimated_tokens


_SHARES = LaneShares()
_STARVING_S = 10.0
"""Shorter than the time after which a message counts as lost and is published again."""

_WORKERS = text("""
    SELECT model, fingerprint, count(*) AS num_workers, CAST(sum(room_tokens) AS bigint) AS room_tokens
    FROM incarnations
    WHERE state = 'ready' AND drain_until IS NULL AND lease_until > clock_timestamp()
    GROUP BY model, fingerprint
""")

_IN_FLIGHT = text("""
    SELECT tenant_id, model, fingerprint, lane, CAST(sum(estimated_tokens) AS bigint) AS num_tokens,
           count(*) FILTER (WHERE state = 'queued') AS num_queued,
           CAST(coalesce(sum(estimated_tokens) FILTER (WHERE state = 'queued'), 0) AS bigint) AS num_queued_tokens,
           CAST(coalesce(extract(epoch FROM clock_timestamp() - min(published_at) FILTER (WHERE state = 'queued')), 0)
                AS float8) AS waited_s
    FROM shards
    WHERE state = 'held' OR (state = 'queued' AND published_at IS NOT NULL)
    GROUP BY tenant_id, model, fingerprint, lane
""")

_QUOTAS = text("""
    SELECT id, quota_tokens FROM tenants
    WHERE id = ANY(CAST(:tenant_ids AS text[])) AND quota_tokens IS NOT NULL
""")

_SPENT = text("""
    SELECT ledger_entries.tenant_id,
           CAST(sum(nanodollars * CASE WHEN lane = 'interactive' THEN CAST(:factor AS float8) ELSE 1 END) AS bigint)
               AS nanodollars
    FROM ledger_entries LEFT JOIN batches ON batches.id = ledger_entries.batch_id
    WHERE until_at > clock_timestamp() - interval '10 minutes'
      AND ledger_entries.tenant_id = ANY(CAST(:tenant_ids AS text[]))
    GROUP BY ledger_entries.tenant_id
""")


def dispatch(connection: Connection, *, shard_tokens: int, shares: LaneShares = _SHARES) -> list[Message]:
    """Cuts and marks the shards that should be in Redis now. The caller publishes them after the commit.

    Each queue gets shards while its window is open, interactive queues first and within their share. The next turn goes
    to the tenant that cost least in the last ten minutes, then to the one with the fewest tokens in flight. Within a
    tenant, `order.precedence` says what is next: what is due first, after pilots. A tenant whose tokens in flight reach
    its quota gets none, and neither does a batch that is paused or of whose budgets one admits no more.
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    tenants = _tenants(connection, shares)
    if not tenants:
        return []
    windows = _windows(connection, tenants)
    weights = sorted({queue[:2] for tenant in tenants.values() for queue in tenant.waiting})
    for model, fingerprint in weights:
        _share(windows, (model, fingerprint), tenants, shares)
    queues = [(*names, lane.value) for lane in (Lane.INTERACTIVE, Lane.BATCH) for names in weights]
    return [
        Message(shard_id, queue_name(*queue))
        for queue in queues
        for shard_id in _fill(connection, queue, windows[queue], list(tenants.values()), shard_tokens)
    ]


def _tenants(connection: Connection, shares: LaneShares) -> dict[str, _Tenant]:
    """Returns the tenants that have waiting work, by id."""
    tenants: dict[str, _Tenant] = {}
    for source in sources(connection, open_allowances(connection)):
        tenant = tenants.setdefault(source.tenant_id, _Tenant(source.tenant_id, shares.interactive_tokens))
        tenant.waiting[source.queue].append(source)
    for row in connection.execute(_QUOTAS, {"tenant_ids": list(tenants)}):
        tenants[row.id].quota_tokens = row.quota_tokens
    if len(tenants) > 1:
        values = {"tenant_ids": list(tenants), "factor": shares.interactive_factor}
        for row in connection.execute(_SPENT, values):
            tenants[row.tenant_id].spent_nanodollars = row.nanodollars
    return tenants


def _windows(connection: Connection, tenants: dict[str, _Tenant]) -> defaultdict[_Queue, Window]:
    windows: defaultdict[_Queue, Window] = defaultdict(Window)
    for row in connection.execute(_WORKERS):
        for lane in Lane:
            window = windows[row.model, row.fingerprint, lane.value]
            window.num_workers, window.room_tokens = row.num_workers, row.room_tokens
    for row in connection.execute(_IN_FLIGHT):
        window = windows[row.model, row.fingerprint, row.lane]
        window.num_shards += row.num_queued
        window.num_tokens += row.num_queued_tokens
        window.waited_s = max(window.waited_s, row.waited_s)
        window.held_tokens += row.num_tokens - row.num_queued_tokens
        if row.tenant_id in tenants:
            tenants[row.tenant_id].take((row.model, row.fingerprint, row.lane), row.num_tokens)
    return windows


def _share(
    windows: defaultdict[_Queue, Window], names: tuple[str, str], tenants: dict[str, _Tenant], shares: LaneShares
) -> None:
    """Bounds the interactive lane while the other lane has waiting work, in Redis or not yet."""
    batch, interactive = windows[*names, Lane.BATCH.value], windows[*names, Lane.INTERACTIVE.value]
    queue = (*names, Lane.BATCH.value)
    if batch.num_shards or any(tenant.is_within_quota and tenant.supply(queue) for tenant in tenants.values()):
        capacity = batch.room_tokens + batch.held_tokens + interactive.held_tokens
        interactive.most_tokens = shares.interactive_share * capacity if capacity else None
        # A large shard would never find enough room while small ones keep coming.
        interactive.is_paused = batch.held_tokens == 0 and batch.waited_s > _STARVING_S


def _fill(
    connection: Connection, queue: _Queue, window: Window, tenants: list[_Tenant], shard_tokens: int
) -> Iterator[int]:
    while window.is_open:
        waiting = [tenant for tenant in tenants if tenant.is_within_quota and tenant.supply(queue)]
        if not waiting:
            return
        tenant = min(waiting, key=lambda tenant: tenant.turn)
        shard = cut(connection, tenant.supply(queue), shard_tokens, lane=queue[2])
        if shard is not None:
            window.num_shards += 1
            window.num_tokens += shard.estimated_tokens
            tenant.take(queue, shard.estimated_tokens)
            yield shard.shard_id
