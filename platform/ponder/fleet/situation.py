"""The situation of each model, read from Postgres: its work, its live workers, and the machines that it may run on."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from ponder.errors import NotFound
from ponder.fleet.backlog import Backlog, Weights, backlog, throughput
from ponder.fleet.problem import LOADING_S, Load, Offer, Running, Situation
from ponder.ledger.price_book import list_prices

_INTERRUPTIONS, _SPOT_HOURS = 1.0, 10.0
"""A gamma prior beside what was seen of a spot machine: one interruption in ten hours."""
_STEPS_A_DOUBLING = 8
"""Work counts as due up to 8 % earlier than it is, so that a plan looks at few due times."""
_MEDIAN_HOURS, _BUCKET_S = 24, 600
_SUSTAINED_S, _LEAST_SAMPLED_S = 120, 60

_KNOWN = text("""
    SELECT DISTINCT ON (name) name, fingerprint FROM models
    WHERE CAST(:model AS text) IS NULL OR name = :model ORDER BY name, last_seen_at DESC
""")

_RUNNING = text("""
    SELECT model, fingerprint, machine, market, count(*) AS num_workers,
           count(*) FILTER (WHERE state = 'loading') AS num_loading,
           CAST(coalesce(extract(epoch FROM clock_timestamp() - min(started_at) FILTER (WHERE state = 'loading')), 0)
                AS float8) AS loading_for_s
    FROM incarnations
    WHERE state IN ('loading', 'ready') AND lease_until > clock_timestamp()
      AND (CAST(:model AS text) IS NULL OR model = :model)
    GROUP BY model, fingerprint, machine, market ORDER BY machine, market
""")

_LOADED = text("""
    SELECT fingerprint, machine, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS loading_s
    FROM (
        SELECT latest.fingerprint, machine, CAST(sum(extract(epoch FROM until_at - from_at)) AS float8) AS seconds
        FROM unnest(CAST(:fingerprints AS text[])) AS asked(fingerprint) CROSS JOIN LATERAL (
            SELECT id, incarnations.fingerprint, machine FROM incarnations
            WHERE incarnations.fingerprint = asked.fingerprint ORDER BY started_at DESC LIMIT 200
        ) AS latest JOIN ledger_entries ON incarnation_id = latest.id AND kind = 'loading'
        GROUP BY latest.id, latest.fingerprint, machine
    ) AS loaded
    GROUP BY fingerprint, machine
""")

# Neither a signal is counted, which operators, Kubernetes and providers send to end a worker, nor what became of a
# worker that the autoscaler had asked to leave.
_INTERRUPTED = text("""
    WITH recent AS (
        SELECT * FROM incarnations WHERE market = 'spot' AND state <> 'ended'
        UNION ALL
        SELECT * FROM incarnations
        WHERE market = 'spot' AND state = 'ended' AND ended_at > statement_timestamp() - interval '30 days'
    )
    SELECT machine, count(*) FILTER (
               WHERE end_reason SIMILAR TO '(its lease expired|% notice)%' AND NOT EXISTS (
                   SELECT FROM fleet_workers
                   WHERE fleet_workers.worker = recent.worker
                     AND coalesce(fleet_workers.ended_at > started_at, true)
                     AND (leave_by IS NOT NULL OR stop_at < recent.ended_at)
               )
           ) AS number,
           CAST(sum(extract(epoch FROM coalesce(ended_at, billed_until) - started_at)) / 3600 AS float8) AS hours
    FROM recent GROUP BY machine
""")

_OCCUPANCY = text(f"""
    SELECT model, fingerprint, CAST(sum(kv_usage * seconds) / sum(seconds) AS float8) AS occupancy
    FROM worker_samples JOIN incarnations ON incarnations.id = incarnation_id
    WHERE at > clock_timestamp() - interval '{_SUSTAINED_S} seconds' AND state = 'ready' AND seconds > 0
    GROUP BY model, fingerprint HAVING sum(seconds) >= {_LEAST_SAMPLED_S}
""")

# By when the batch came, in engine time of its completed jobs, as they were charged. clock_timestamp() could not be
# compared with an index, because it changes within a statement.
_INTERACTIVE = text(f"""
    WITH arrived AS MATERIALIZED (
        SELECT id, floor(extract(epoch FROM clock_timestamp() - created_at) / {_BUCKET_S}) AS bucket FROM batches
        WHERE lane = 'interactive' AND created_at > statement_timestamp() - interval '{_MEDIAN_HOURS} hours'
    )
    SELECT fingerprint, bucket, left(substr(name, 6), -2) AS machine, sum(CAST(value AS float8)) AS seconds
    FROM (
        SELECT bucket, own.fingerprint, own.sums FROM arrived CROSS JOIN LATERAL (
            SELECT fingerprint, sums FROM batch_experience WHERE batch_id = arrived.id OFFSET 0
        ) AS own
        UNION ALL
        SELECT bucket, fingerprint, sums FROM arrived JOIN observations ON batch_id = arrived.id
    ) AS cells CROSS JOIN LATERAL jsonb_each_text(sums) AS sum(name, value)
    WHERE name LIKE 'time.%.y'
    GROUP BY fingerprint, bucket, machine
""")


def situations(connection: Connection, model: str | None = None) -> list[Situation]:
    """Returns the situation of each model that has work or workers, or of one model. Raises NotFound for it."""
    work = defaultdict(list)
    for item in backlog(connection, model):
        if item.may_run:
            work[item.weights].append(item)
    newest = {row.name: row.fingerprint for row in connection.execute(_KNOWN, {"model": model})}
    running = _running(connection, model, newest, work)
    asked = work.keys() | running.keys()
    if model is not None and not any(weights[0] == model for weights in asked):
        if model not in newest:
            raise NotFound(f"there is no model {model}: no worker has served it", param="model")
        asked |= {(model, newest[model])}
    facts = _Facts.read(connection, asked)
    return [facts.situation(weights, work[weights], running.get(weights, [])) for weights in sorted(asked)]


@dataclass(frozen=True, slots=True)
class _Live:
    machine: str
    market: str
    num_workers: int
    num_loading: int
    loading_for_s: float


def _running(
    connection: Connection, model: str | None, newest: Mapping[str, str], work: Mapping[Weights, Sequence[Backlog]]
) -> dict[Weights, list[_Live]]:
    """Returns live workers by weights. Those that load will have the weights with most work, or the newest."""
    found = defaultdict(list)
    for row in connection.execute(_RUNNING, {"model": model}):
        columns = dict(row._mapping)
        name, fingerprint = columns.pop("model"), columns.pop("fingerprint")
        if fingerprint is None:
            amounts = {one: sum(item.tokens for item in work[one]) for one in work if one[0] == name}
            fingerprint = max(amounts, key=amounts.__getitem__)[1] if amounts else newest.get(name, "")
        found[name, fingerprint].append(_Live(**columns))
    return found


@dataclass(frozen=True, slots=True)
class _Facts:
    """The facts about the models that are asked about, and about machines."""

    prices: Mapping[tuple[str, str], int]
    rates: Mapping[tuple[str, str], float]
    loading_s: Mapping[tuple[str, str], float]
    interruptions_per_hour: Mapping[str, float]
    occupancy: Mapping[Weights, float]
    interactive: Mapping[str, Sequence[float]]
    """By fingerprint, what workers do in the time that interactive jobs took: tokens per second, bucket by bucket."""

    @classmethod
    def read(cls, connection: Connection, asked: Iterable[Weights]) -> _Facts:
        fingerprints = sorted({fingerprint for _, fingerprint in asked})
        loaded = connection.execute(_LOADED, {"fingerprints": fingerprints})
        rates = throughput(connection, fingerprints)
        return cls(
            {(price.machine, price.market): price.nanodollars_per_hour for price in list_prices(connection)},
            rates,
            {(row.fingerprint, row.machine): row.loading_s for row in loaded},
            {
                row.machine: (_INTERRUPTIONS + row.number) / (_SPOT_HOURS + row.hours)
                for row in connection.execute(_INTERRUPTED)
            },
            {(row.model, row.fingerprint): row.occupancy for row in connection.execute(_OCCUPANCY)},
            _interactive(connection, rates),
        )

    def situation(self, weights: Weights, work: Sequence[Backlog], live: Sequence[_Live]) -> Situation:
        model, fingerprint = weights
        return Situation(
            model=model,
            fingerprint=fingerprint or None,
            loads=_loads(work),
            offers=tuple(self._offers(fingerprint)),
            running=tuple(self._joined(fingerprint, live)),
            occupancy=self.occupancy.get(weights),
            interactive_tokens_per_s=self._median(fingerprint),
        )

    def _offers(self, fingerprint: str) -> Iterable[Offer]:
        """Yields the machines that have a price and on which the model's throughput was measured."""
        for (machine, market), price in sorted(self.prices.items()):
            rate = self.rates.get((fingerprint, machine))
            if rate is not None:
                interruptions = 0.0
                if market == "spot":
                    interruptions = self.interruptions_per_hour.get(machine, _INTERRUPTIONS / _SPOT_HOURS)
                yield Offer(machine, market, price, rate, self._loading_s(fingerprint, machine), interruptions)

    def _loading_s(self, fingerprint: str, machine: str) -> float:
        elsewhere = [seconds for (one, _), seconds in self.loading_s.items() if one == fingerprint]
        return self.loading_s.get((fingerprint, machine), max(elsewhere, default=LOADING_S))

    def _joined(self, fingerprint: str, live: Sequence[_Live]) -> Iterable[Running]:
        """Yields one entry for each kind of machine, though those that load are counted apart."""
        kinds: dict[tuple[str, str], list[_Live]] = defaultdict(list)
        for one in live:
            kinds[one.machine, one.market].append(one)
        for (machine, market), ones in kinds.items():
            num_loading = sum(one.num_loading for one in ones)
            loading_for_s = max(one.loading_for_s for one in ones)
            ready_in_s = max(self._loading_s(fingerprint, machine) - loading_for_s, 0.0) if num_loading else 0.0
            yield Running(machine, market, sum(one.num_workers for one in ones), num_loading, ready_in_s)

    def _median(self, fingerprint: str) -> float:
        """Returns the median of the rates of the last day, in which buckets without any load count as zero."""
        seen = self.interactive.get(fingerprint, [])
        num_buckets = _MEDIAN_HOURS * 3_600 // _BUCKET_S
        return statistics.median([*seen, *[0.0] * max(num_buckets - len(seen), 0)])


def _interactive(connection: Connection, rates: Mapping[tuple[str, str], float]) -> dict[str, list[float]]:
    """Returns the interactive load of each bucket that had any, by fingerprint.

    A second of an engine counts as the tokens that its machine does in it on the average of all work. Prompts are read
    many times faster than answers are written, so that the tokens of jobs themselves would say little about workers.
    """
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for row in connection.execute(_INTERACTIVE):
        rate = rates.get((row.fingerprint, row.machine), 0.0)
        buckets[row.fingerprint][row.bucket] += row.seconds * rate / _BUCKET_S
    return {fingerprint: list(found.values()) for fingerprint, found in buckets.items()}


def _loads(work: Sequence[Backlog]) -> tuple[Load, ...]:
    """Adds up work that is due at about the same time."""
    tokens: dict[tuple[float, str], int] = defaultdict(int)
    for item in work:
        step = math.floor(_STEPS_A_DOUBLING * math.log2(max(item.due_in_s, 1.0)))
        tokens[2 ** (step / _STEPS_A_DOUBLING), item.lane] += item.tokens
    return tuple(Load(lane, due, number) for (due, lane), number in sorted(tokens.items()))
