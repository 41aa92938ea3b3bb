"""Prometheus metrics of one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class WorkerMetrics(Collector):
    """Read when somebody asks; `read` gives what is true now, name by name."""

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, value in self._read().items():
            yield GaugeMetricFamily(f"ponder_worker_{name}", name.replace("_", " "), value=value)


def serve_metrics(port: int, read: Callable[[], Mapping[str, float]]) -> None:
    """On every interface, from a daemon thread. Raises OSError where the port is taken."""
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(read))
    start_http_server(port, registry=registry)
