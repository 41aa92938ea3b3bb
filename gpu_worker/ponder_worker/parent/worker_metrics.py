"""Prometheus metrics of one worker."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ponder.domain.state import Lane, Verdict
from ponder.jobs.claim import ClaimedJob
from ponder.jobs.tick_report import Settlement
from ponder_worker.parent.notices.notice import Notice
from ponder_worker.protocol import EngineMetrics

_GAUGES = {
    "num_requests_running": "num_running",
    "num_requests_waiting": "num_waiting",
    "kv_cache_usage_perc": "kv_cache_usage_perc",
}
_COUNTERS = {
    "prefix_cache_queries": "prefix_queries",
    "prefix_cache_hits": "prefix_hits",
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "generated_tokens",
    "num_preemptions": "num_preemptions",
}
_OURS = {
    "engine_steps": ("num_steps", "Steps of the generator."),
    "step_tokens": ("computed_tokens", "Tokens computed in steps of the generator; a step's fill is their ratio."),
    "reward_steps": ("reward_num_steps", "Steps of the reward model."),
    "reward_step_tokens": ("reward_computed_tokens", "Tokens computed in steps of the reward model."),
    "speculation_hits": ("speculation_hits", "Steps begun before they were asked for, and asked for later."),
    "speculation_misses": ("speculation_misses", "Steps begun before they were asked for, and cancelled."),
    "speculated_tokens": ("speculated_tokens", "Tokens that hits had made before they were asked for."),
    "misguessed_tokens": ("misguessed_tokens", "Tokens that misses had made."),
}
_JOB_BUCKETS_S = (
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
    *(1_800.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0, 86_400.0),
)
_RESULTS = (*(verdict.value for verdict in Verdict), "error")
_RETRIES = ("round", "preempted", "lost", "handed_on")


class JobMetrics:
    """The metrics of the jobs that this worker has settled. Times are those of `ponder report latency`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._end_to_end = self._seconds("end_to_end", "From a job's submission to its settlement.")
        self._first_token = self._seconds("first_token", "From a job's submission to its first token.")
        self._first_visible_token = self._seconds(
            "first_visible_token", "From a job's submission to its first token outside a thought."
        )
        self._settled = Counter(
            "ponder_worker_settled_jobs", "Settled jobs, by verdict.", ("result",), registry=self._registry
        )
        self._retried = Counter(
            "ponder_worker_retried_jobs",
            "Settled jobs that took another round or attempt, once for each reason.",
            ("reason",),
            registry=self._registry,
        )
        # From zero on, because Prometheus sees no growth in the first value of a series.
        for result in _RESULTS:
            self._settled.labels(result)
        for reason in _RETRIES:
            self._retried.labels(reason)

    def count(self, job: ClaimedJob, settlement: Settlement, settled_at: datetime) -> None:
        """Counts a job that Postgres has settled."""
        lane, submitted_s, settled_s = job.lane.value, job.created_at.timestamp(), settled_at.timestamp()
        self._end_to_end.labels(lane).observe(settled_s - submitted_s)
        for histogram, token_ms in (
            (self._first_token, settlement.first_token_ms),
            (self._first_visible_token, settlement.first_visible_token_ms),
        ):
            if token_ms is not None:
                histogram.labels(lane).observe(min(token_ms / 1_000, settled_s) - submitted_s)
        self._settled.labels("error" if settlement.verdict is None else settlement.verdict.value).inc()
        for reason in (*job.former_outcomes, *(["round"] if settlement.num_rounds > 1 else [])):
            self._retried.labels(reason).inc()

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()

    def _seconds(self, name: str, meaning: str) -> Histogram:
        histogram = Histogram(
            f"ponder_worker_job_{name}_seconds", meaning, ("lane",), registry=self._registry, buckets=_JOB_BUCKETS_S
        )
        for lane in Lane:
            histogram.labels(lane.value)
        return histogram


class WorkerMetrics(Collector):
    """Calls `read` for the current metrics, `notices` for all notices so far, and `jobs` for the metrics of settled
    jobs, whenever they are scraped.
    """

    def __init__(
        self,
        read: Callable[[], EngineMetrics],
        notices: Callable[[], Sequence[Notice]],
        jobs: Callable[[], Iterable[Metric]],
    ) -> None:
        self._read = read
        self._notices = notices
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        metrics = self._read()
        for name, value in metrics.numbers.items():
            yield GaugeMetricFamily(f"ponder_worker_{name}", name.replace("_", " "), value=value)
        yield from as_vllm(metrics)
        yield from notice_metrics(self._notices())
        yield from self._jobs()


def notice_metrics(notices: Sequence[Notice]) -> Iterator[Metric]:
    """Yields how many notices came, by source and kind, and how long before the machine goes the last one did."""
    labels = ("source", "kind")
    count = CounterMetricFamily("ponder_worker_notices", "Notices to leave.", labels=labels)
    for values, number in collections.Counter((notice.source, notice.kind) for notice in notices).items():
        count.add_metric(values, number)
    yield count
    warning = GaugeMetricFamily(
        "ponder_worker_notice_warning_seconds", "Seconds of warning of the last one.", labels=labels
    )
    for values, warning_s in {(notice.source, notice.kind): notice.warning_s for notice in notices}.items():
        if warning_s is not None:
            warning.add_metric(values, warning_s)
    yield warning


def as_vllm(metrics: EngineMetrics) -> Iterator[Metric]:
    """Yields the generator's metrics under vLLM's names, with `ponder:` before them, and those that only ponder has."""
    numbers = metrics.numbers
    for name, own in _GAUGES.items():
        if own in numbers:
            yield GaugeMetricFamily(f"ponder:{name}", f"As vllm:{name}.", value=numbers[own])
    for name, own in _COUNTERS.items():
        if own in numbers:
            yield CounterMetricFamily(f"ponder:{name}", f"As vllm:{name}.", value=numbers[own])
    for name, (own, meaning) in _OURS.items():
        if own in numbers:
            yield CounterMetricFamily(f"ponder:{name}", meaning, value=numbers[own])
    bounds = [*(str(float(bound)) for bound in metrics.latency_buckets_s), "+Inf"]
    for name, histogram in metrics.latencies.items():
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        yield HistogramMetricFamily(f"ponder:{name}", f"As vllm:{name}.", buckets=buckets, sum_value=histogram.sum_s)


def serve_metrics(
    port: int,
    read: Callable[[], EngineMetrics],
    notices: Callable[[], Sequence[Notice]],
    jobs: Callable[[], Iterable[Metric]],
) -> None:
    """Serves them on every interface from a daemon thread. Raises OSError if the port is taken."""
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(read, notices, jobs))
    start_http_server(port, registry=registry)
