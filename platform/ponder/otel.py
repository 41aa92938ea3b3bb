"""The tracer that hands spans to OpenTelemetry's SDK. Everything about the export is read by the SDK itself, from the
standard variables `OTEL_…`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping

import structlog
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import ponder
from ponder.failure import brief
from ponder.trace import Span, TraceContext

_log = structlog.get_logger(__name__)

_NANOSECONDS = 1_000_000_000
_W3C = TraceContextTextMapPropagator()


class OtelTracer:
    """A provider of its own: what libraries trace by the global one is none of ours, and may hold what users wrote."""

    def __init__(self, processor: SpanProcessor, resource: Mapping[str, str]) -> None:
        """Gives all spans to `processor`. `resource` describes this process where the environment does not."""
        self._ids = _GivenIds()
        self._processor = processor
        described = Resource.create(dict(resource)).merge(OTELResourceDetector().detect())
        # Its handler at exit would wait for a collector that does not answer.
        self._provider = TracerProvider(resource=described, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ponder", ponder.__version__)

    def samples(self, trace_id: int) -> bool:
        return self._is_kept(Context(), trace_id, "job")

    def receive(self, traceparent: str | None) -> tuple[TraceContext, int | None]:
        context = _W3C.extract({"traceparent": traceparent or ""}, Context())
        caller = api.get_current_span(context).get_span_context()
        trace_id = caller.trace_id if caller.is_valid else random.getrandbits(128) or 1
        is_kept = self._is_kept(context, trace_id, "submission")
        found = TraceContext(trace_id, random.getrandbits(64) or 1, is_kept)
        return found, caller.span_id if caller.is_valid else None

    def export(self, span: Span) -> None:
        try:
            self._export(span)
        except Exception as error:  # no job may suffer from its trace, whatever the environment adds to the SDK
            _log.warning("span_not_exported", span=span.name, error=brief(error))

    def flush(self, timeout_s: float) -> None:
        # In a thread of its own, because the SDK's own limit is not kept.
        thread = threading.Thread(target=self._processor.force_flush, daemon=True)
        thread.start()
        thread.join(timeout_s)

    def _is_kept(self, context: Context, trace_id: int, name: str) -> bool:
        try:
            decided = self._provider.sampler.should_sample(context, trace_id, name).decision
        except Exception as error:  # an operator may have named any sampler
            _log.warning("trace_not_sampled", error=brief(error))
            return False
        return decided is Decision.RECORD_AND_SAMPLE

    def _export(self, span: Span) -> None:
        began_ns = round(span.began_at * _NANOSECONDS)
        self._ids.next = (span.trace_id, span.span_id)
        made = self._tracer.start_span(
            span.name,
            context=_context(span.trace_id, span.parent_id),
            kind=api.SpanKind.SERVER if span.is_remote else api.SpanKind.INTERNAL,
            attributes={name: value for name, value in span.attributes.items() if value is not None},
            links=[api.Link(linked) for linked in map(_linked, span.links) if linked.is_valid],
            start_time=began_ns,
        )
        if span.has_failed:
            made.set_status(api.StatusCode.ERROR)
        made.end(max(began_ns, round(span.ended_at * _NANOSECONDS)))


def otlp_tracer(service: str, instance: str | None) -> OtelTracer:
    """Makes a tracer that exports by OTLP over HTTP, from a thread of its own."""
    resource = {SERVICE_NAME: f"ponder-{service}", SERVICE_VERSION: ponder.__version__}
    if instance is not None:
        resource["service.instance.id"] = instance
    return OtelTracer(BatchSpanProcessor(OTLPSpanExporter()), resource)


class _GivenIds(RandomIdGenerator):
    """Gives the span that this thread makes next the ids that it is to have."""

    def __init__(self) -> None:
        self._given = threading.local()

    @property
    def next(self) -> tuple[int | None, int | None]:
        found: tuple[int | None, int | None] = getattr(self._given, "ids", (None, None))
        return found

    @next.setter
    def next(self, ids: tuple[int | None, int | None]) -> None:
        self._given.ids = ids

    def generate_trace_id(self) -> int:
        return self.next[0] or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.next[1] or super().generate_span_id()


def _context(trace_id: int, parent_id: int | None) -> Context:
    if parent_id is None:
        return Context()
    flags = api.TraceFlags(api.TraceFlags.SAMPLED)
    parent = api.SpanContext(trace_id, parent_id, is_remote=True, trace_flags=flags)
    return api.set_span_in_context(api.NonRecordingSpan(parent), Context())


def _linked(traceparent: str) -> api.SpanContext:
    context = _W3C.extract({"traceparent": traceparent}, Context())
    return api.get_current_span(context).get_span_context()
