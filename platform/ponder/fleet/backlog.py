"""The work that is not settled, the measured throughput of workers, and what follows from both.

Costs a row for each open batch, queued shard and running job, however many jobs wait.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from ponder.fleet.fluid import Demand, Group
from ponder.jobs.piloting.pilot import UNDECIDED

_BACKLOG = text(f"""
    WITH work AS (
        SELECT batch_id, model, fingerprint, uncut_tokens AS tokens, true AS is_uncut
        FROM portions WHERE cut_until < last_line
        UNION ALL
        SELECT batch_id, model, fingerprint, estimated_tokens, false FROM shards WHERE state = 'queued'
        UNION ALL
        SELECT shards.batch_id, shards.model, shards.fingerprint, jobs.estimated_tokens, false
        FROM attempts JOIN shards ON shards.id = shard_id JOIN jobs ON jobs.id = job_id
        WHERE attempts.ended_at IS NULL
    )
    SELECT work.model, work.fingerprint, batches.lane, CAST(sum(tokens) AS bigint) AS tokens,
           CAST(greatest(extract(epoch FROM expires_at - clock_timestamp()), 0) AS float8) AS due_in_s,
           paused_at IS NULL AND exhausted_at IS NULL AND NOT (is_uncut AND {UNDECIDED}) AS may_run
    FROM work JOIN batches ON batches.id = batch_id
    WHERE batches.state = 'in_progress' AND expires_at > clock_timestamp() AND tokens > 0
      AND (CAST(:model AS text) IS NULL OR work.model = :model)
    GROUP BY work.model, work.fingerprint, batches.id, is_uncut
    ORDER BY work.model, work.fingerprint, expires_at, batches.lane
""")

# An engine's second is divided among its jobs, so tokens by seconds are those of a busy worker.
_THROUGHPUT = text("""
    SELECT fingerprint, left(substr(name, 6), -2) AS machine,
           sum(CAST(value AS float8)) FILTER (WHERE name LIKE '%.x') AS tokens,
           sum(CAST(value AS float8)) FILTER (WHERE name LIKE '%.y') AS seconds
    FROM (
        SELECT fingerprint, sums FROM experience WHERE fingerprint = ANY(CAST(:fingerprints AS text[]))
        UNION ALL
        SELECT fingerprint, sums FROM observations WHERE fingerprint = ANY(CAST(:fingerprints AS text[]))
    ) AS cells CROSS JOIN LATERAL jsonb_each_text(sums) AS sum(name, value)
    WHERE name LIKE 'time.%.x' OR name LIKE 'time.%.y'
    GROUP BY fingerprint, machine
""")

_LIVE = text("""
    SELECT model, fingerprint, machine, count(*) AS num_workers FROM incarnations
    WHERE state = 'ready' AND lease_until > clock_timestamp()
    GROUP BY model, fingerprint, machine ORDER BY machine
""")

Weights = tuple[str, str]
"""A model's name and the fingerprint of its weights."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unsettled work of one model and lane that is due at the same time. may_run: nothing keeps it from being begun."""

    model: str
    fingerprint: str
    lane: str
    tokens: int
    due_in_s: float
    may_run: bool

    @property
    def weights(self) -> Weights:
        return (self.model, self.fingerprint)


def backlog(connection: Connection, model: str | None = None) -> list[Backlog]:
    """Returns all unsettled work, or that of a model, by when it is due."""
    return [Backlog(**row._mapping) for row in connection.execute(_BACKLOG, {"model": model})]


def throughput(connection: Connection, fingerprints: Collection[str]) -> dict[tuple[str, str], float]:
    """Returns the tokens of prompts and answers that a busy worker does a second, by fingerprint and machine.

    It is measured from the settled jobs of all tenants.
    """
    rows = connection.execute(_THROUGHPUT, {"fingerprints": sorted(fingerprints)})
    return {(row.fingerprint, row.machine): row.tokens / row.seconds for row in rows if row.tokens and row.seconds}


@dataclass(frozen=True, slots=True)
class LiveWorkers:
    """The live workers of each model. `unmeasured` are the weights of which no job has settled on a live machine."""

    groups: Mapping[Weights, tuple[Group, ...]]
    unmeasured: frozenset[Weights]

    @classmethod
    def read(cls, connection: Connection) -> LiveWorkers:
        rows = connection.execute(_LIVE).all()
        rates = throughput(connection, {row.fingerprint for row in rows})
        groups: dict[Weights, list[Group]] = defaultdict(list)
        unmeasured = set()
        for row in rows:
            weights = (row.model, row.fingerprint)
            rate = rates.get((row.fingerprint, row.machine))
            if rate is None:
                unmeasured.add(weights)
            else:
                groups[weights].append(Group(row.num_workers, rate))
        return cls({weights: tuple(found) for weights, found in groups.items()}, frozenset(unmeasured - groups.keys()))

    def tokens_per_s(self, weights: Weights) -> float | None:
        """Returns what a model's live workers do together, or None if that was never measured."""
        if weights in self.unmeasured:
            return None
        return sum(group.num_workers * group.tokens_per_s for group in self.groups.get(weights, ()))

    def seconds(self, work: Iterable[Backlog]) -> float | None:
        """Returns how long the work of models takes if each has all of its workers, or None if that is unknown."""
        tokens: dict[Weights, int] = defaultdict(int)
        for item in work:
            tokens[item.weights] += item.tokens
        longest = 0.0
        for weights, number in tokens.items():
            rate = self.tokens_per_s(weights)
            if rate is None:
                return None
            longest = max(longest, number / rate if rate else math.inf)
        return longest

    def num_workers(self, weights: Weights) -> int:
        return sum(group.num_workers for group in self.groups.get(weights, ()))


def demand_of(work: Iterable[Backlog]) -> Demand:
    return Demand.of((item.due_in_s, item.tokens) for item in work)


def slack_s(demand: Demand, tokens_per_s: float) -> float | None:
    """Returns for how long workers could do nothing and still keep all deadlines; None without work.

    It is negative if they cannot keep them, and minus infinity if there is no worker.
    """
    if not demand.dues_s:
        return None
    if tokens_per_s <= 0:
        return -math.inf
    return min(due - total / tokens_per_s for due, total in zip(demand.dues_s, demand.totals, strict=True))
