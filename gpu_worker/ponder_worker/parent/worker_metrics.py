"""Prometheus metrics of one worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

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


class WorkerMetrics(Collector):
    """Calls `read` for the current metrics, and `notices` for all notices so far, whenever they are scraped."""

    def __init__(self, read: Callable[[], EngineMetrics], notices: Callable[[], Sequence[Notice]]) -> None:
        self._read = read
        self._notices = notices

    def collect(self) -> Iterator[Metric]:
        metrics = self._read()
        for name, value in metrics.numbers.items():
            yield GaugeMetricFamily(f"ponder_worker_{name}", name.replace("_", " "), value=value)
        yield from as_vllm(metrics)
        yield from notice_metrics(self._notices())


def notice_metrics(notices: Sequence[Notice]) -> Iterator[Metric]:
    """Yields how many notices came, by source and kind, and how long before the machine goes the last one did."""
    labels = ("source", "kind")
    count = CounterMetricFamily("ponder_worker_notices", "Notices to leave.", labels=labels)
    for values, number in Counter((notice.source, notice.kind) for notice in notices).items():
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


def serve_metrics(port: int, read: Callable[[], EngineMetrics], notices: Callable[[], Sequence[Notice]]) -> None:
    """Serves them on every interface from a daemon thread. Raises OSError if the port is taken."""
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(read, notices))
    start_http_server(port, registry=registry)
