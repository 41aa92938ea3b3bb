"""The route /metrics, for Prometheus. Metrics contain no tenants and no prompts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.fleet.backlog import Backlog, LiveWorkers, Weights, backlog, demand_of, slack_s
from ponder.fleet.proposing.scope import LEADER
from ponder.jobs.dispatching.dispatcher_status import dispatcher_status
from ponder.queue.celery_app import trouble
from ponder.store.counter import read_counter

router = APIRouter(tags=["health"])

_GAUGES: tuple[tuple[str, str, tuple[str, ...], TextClause], ...] = (
    (
        "ponder_open_batches",
        "Batches that have not ended",
        ("state",),
        text(
            "SELECT state, count(*) FROM batches "
            "WHERE state IN ('validating','in_progress','cancelling') GROUP BY state"
        ),
    ),
    (
        "ponder_open_shards",
        "Shards that are queued or held",
        ("state", "model", "lane"),
        text("SELECT state, model, lane, count(*) FROM shards WHERE state <> 'finished' GROUP BY state, model, lane"),
    ),
    (
        "ponder_queued_tokens",
        "Estimated tokens of queued shards",
        ("model", "lane"),
        text("SELECT model, lane, sum(estimated_tokens) FROM shards WHERE state = 'queued' GROUP BY model, lane"),
    ),
    (
        "ponder_live_workers",
        "Incarnations within their lease",
        ("state", "model", "machine", "market"),
        text(
            "SELECT state, model, machine, market, count(*) FROM incarnations "
            "WHERE state <> 'ended' AND lease_until > clock_timestamp() GROUP BY state, model, machine, market"
        ),
    ),
    (
        "ponder_fleet_decisions",
        "Entries of the log of the fleet in the last hour",
        ("action",),
        text(
            "SELECT action, count(*) FROM fleet_decisions "
            "WHERE at > statement_timestamp() - interval '1 hour' GROUP BY action"
        ),
    ),
    (
        "ponder_submitted_lines",
        "Lines of the batches that were submitted in the last hour, once they are validated",
        ("state",),
        text(
            "WITH recent AS MATERIALIZED ("
            "  SELECT batch.* FROM tenants CROSS JOIN LATERAL ("
            "    SELECT id, num_lines FROM batches WHERE tenant_id = tenants.id"
            "    AND created_at > statement_timestamp() - interval '1 hour' OFFSET 0"
            "  ) AS batch"
            "), counted AS ("
            "  SELECT coalesce(sum(num_lines), 0) AS num_lines, coalesce(sum("
            "    coalesce((SELECT num_rejected FROM batch_totals WHERE batch_id = recent.id), 0)"
            "    + coalesce((SELECT sum(num_rejected) FROM tallies WHERE batch_id = recent.id), 0)"
            "  ), 0) AS num_rejected FROM recent"
            ") "
            "SELECT state, num FROM counted CROSS JOIN LATERAL ("
            "  VALUES ('accepted', num_lines - num_rejected), ('rejected', num_rejected)"
            ") AS line(state, num)"
        ),
    ),
    (
        "ponder_autoscaler_silent_seconds",
        "For how long the active autoscaler, which asks in every turn, has asked Postgres nothing; absent without one",
        (),
        text(
            "SELECT CAST(extract(epoch FROM clock_timestamp() - state_change) AS float8) "
            "FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database() "
            f"AND (CAST(classid AS bigint) << 32 | CAST(objid AS bigint)) = {LEADER} AND state_change IS NOT NULL"
        ),
    ),
)
_COUNTERS = (
    ("ponder_spent_nanodollars", "Ledger entries", "kind", "spent"),
    (
        "ponder_preemptions",
        "Workers that ended by a notice of their cloud, a signal, or the end of their lease",
        "reason",
        "preempted",
    ),
)
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Meter:
    """Counters of requests by known methods and the templates of routes, so that no request adds its own label."""

    def __init__(self, engine: Engine, redis_url: str) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Platform(engine, redis_url))
        self._requests = Counter(
            "ponder_http_requests", "Requests", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "ponder_http_request_seconds",
            "Time to the last byte, without event streams",
            ("method", "route"),
            registry=self.registry,
        )

    def count(self, scope: Scope, status: int, seconds: float | None) -> None:
        """Counts a request. seconds: None for a stream of events, whose time says nothing about the service."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(method, route).observe(seconds)


class Observed:
    """ASGI middleware that reports every request to the meter."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, is_stream = 500, False
        began = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._meter.count(scope, status, None if is_stream else time.perf_counter() - began)


class _Platform(Collector):
    """A collector of metrics from Postgres at every scrape. `ponder_database_up` is 0 if it does not answer."""

    def __init__(self, engine: Engine, redis_url: str) -> None:
        self._engine = engine
        self._redis_url = redis_url

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        try:
            metrics = self._ask()
            up = 1.0
        except (SQLAlchemyError, OSError):
            metrics, up = [], 0.0
        yield GaugeMetricFamily("ponder_database_up", "Whether Postgres answers", value=up)
        redis_up = float(trouble(self._redis_url, timeout_s=2) is None)
        yield GaugeMetricFamily("ponder_redis_up", "Whether Redis accepts messages", value=redis_up)
        yield from metrics

    def _ask(self) -> list[Metric]:
        metrics: list[Metric] = []
        with self._engine.connect() as connection:
            for name, help_text, labels, query in _GAUGES:
                gauge = GaugeMetricFamily(name, help_text, labels=labels)
                for row in connection.execute(query):
                    gauge.add_metric([str(value) for value in row[:-1]], float(row[-1]))
                metrics.append(gauge)
            for name, help_text, label, key in _COUNTERS:
                counter = CounterMetricFamily(name, help_text, labels=(label,))
                for value, amount in read_counter(connection, key).items():
                    counter.add_metric([value], float(amount))
                metrics.append(counter)
            status = dispatcher_status(connection)
            metrics.extend(_signal(connection))
        for name, help_text, is_so in (
            ("ponder_dispatcher_up", "Whether a dispatcher runs and no step that work depends on fails", status.is_ok),
            (
                "ponder_dispatcher_failing",
                "Whether any step failed in the last round",
                status.current_error is not None,
            ),
        ):
            metrics.append(GaugeMetricFamily(name, help_text, value=float(is_so)))
        return metrics


def _signal(connection: Connection) -> Iterator[Metric]:
    """Yields what says how many workers are needed. Waiting jobs are not counted one by one."""
    work, workers = backlog(connection), LiveWorkers.read(connection)
    lanes: dict[tuple[str, str], list[Backlog]] = defaultdict(list)
    by_weights: dict[Weights, list[Backlog]] = defaultdict(list)
    for item in work:
        lanes[item.model, item.lane].append(item)
        if item.may_run:
            by_weights[item.weights].append(item)
    tokens = GaugeMetricFamily(
        "ponder_backlog_tokens", "Estimated tokens of all jobs that are not settled", labels=("model", "lane")
    )
    runnable = GaugeMetricFamily(
        "ponder_backlog_runnable_tokens",
        "The same without what is paused, out of budget, or waiting for the decision on a pilot",
        labels=("model", "lane"),
    )
    seconds = GaugeMetricFamily(
        "ponder_backlog_seconds",
        "The runnable backlog by the measured throughput of the live workers; infinite without a worker",
        labels=("model", "lane"),
    )
    for labels, items in sorted(lanes.items()):
        may_run = [item for item in items if item.may_run]
        tokens.add_metric(labels, sum(item.tokens for item in items))
        runnable.add_metric(labels, sum(item.tokens for item in may_run))
        if (needed := workers.seconds(may_run)) is not None:
            seconds.add_metric(labels, needed)
    slack = GaugeMetricFamily(
        "ponder_deadline_slack_seconds",
        "How long the live workers could do nothing and still keep every deadline; negative if they cannot",
        labels=("model",),
    )
    least: dict[str, float] = {}
    for weights, items in by_weights.items():
        rate = workers.tokens_per_s(weights)
        if rate is not None and (spare := slack_s(demand_of(items), rate)) is not None:
            least[weights[0]] = min(spare, least.get(weights[0], spare))
    for model, spare in sorted(least.items()):
        slack.add_metric([model], spare)
    yield from (tokens, runnable, seconds, slack)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    meter = request.app.state.meter
    assert isinstance(meter, Meter)
    return Response(generate_latest(meter.registry), media_type="text/plain; version=0.0.4; charset=utf-8")
