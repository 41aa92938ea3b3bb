"""A collector of traces on this machine, which takes OTLP over HTTP."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import Received, Receiver, receiving, status


@dataclass(frozen=True)
class Collected:
    """A span as it came. Ids are in hexadecimals, and a root's parent is empty."""

    service: str
    name: str
    trace_id: str
    id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: Sequence[str]
    """The ids of the linked traces."""


class Collector:
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    @property
    def environment(self) -> dict[str, str]:
        """What a service needs to export to here, without delay."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._receiver.url.removesuffix("/hook"),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    @property
    def requests(self) -> list[Received]:
        return self._receiver.received

    @property
    def spans(self) -> list[Collected]:
        return [span for request in list(self.requests) for span in _spans(request)]


@contextmanager
def collecting() -> Iterator[Collector]:
    with receiving() as receiver:
        receiver.answer = lambda handler: status(handler, 200)
        yield Collector(receiver)


def _spans(request: Received) -> Iterator[Collected]:
    is_packed = request.headers.get("Content-Encoding") == "gzip"
    body = gzip.decompress(request.body) if is_packed else request.body
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _values(group.resource.attributes)["service.name"]
        for span in (span for scope in group.scope_spans for span in scope.spans):
            yield Collected(
                service,
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                _values(span.attributes),
                [link.trace_id.hex() for link in span.links],
            )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
