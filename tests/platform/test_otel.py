"""Spans as OpenTelemetry's SDK exports them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from ponder.trace import Span, job_span, trace_of

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult, StaticSampler
from opentelemetry.trace import SpanKind, StatusCode
from spans import Traced, ids, seconds

from ponder.otel import OtelTracer

TRACE = trace_of("batch_1", 7)
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_span_has_the_ids_times_attributes_and_links_that_it_was_given() -> None:
    traced = Traced()
    about = {"ponder.job.id": "job_7", "ponder.error": None}
    traced.tracer.export(Span("job", TRACE, None, 10.5, 12.5, job_span(TRACE), about, [CALLER], has_failed=True))
    traced.tracer.export(Span("claim", TRACE, job_span(TRACE), 11.0, 10.9, is_remote=True))
    root, child = traced.spans
    assert ids(root) == (TRACE, job_span(TRACE))
    assert (root.parent, root.status.status_code) == (None, StatusCode.ERROR)
    assert seconds(root) == (10.5, 12.5)
    assert dict(root.attributes or {}) == {"ponder.job.id": "job_7"}
    assert [f"{link.context.trace_id:032x}" for link in root.links] == [CALLER.split("-")[1]]
    assert ids(child)[0] == TRACE
    assert ids(child)[1] != job_span(TRACE)
    assert child.parent is not None
    assert child.parent.span_id == job_span(TRACE)
    assert child.kind is SpanKind.SERVER
    assert seconds(child) == (11.0, 11.0), "no span ends before it begins"


def test_a_sampler_decides_alike_about_a_trace_wherever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    here, there = Traced(), Traced()
    traces = [trace_of("batch_1", number) for number in range(1, 201)]
    kept = [trace_id for trace_id in traces if here.tracer.samples(trace_id)]
    assert kept == [trace_id for trace_id in traces if there.tracer.samples(trace_id)]
    assert 60 < len(kept) < 140
    for trace_id in kept:
        here.tracer.export(Span("job", trace_id, None, 1.0, 2.0, job_span(trace_id)))
        here.tracer.export(Span("claim", trace_id, job_span(trace_id), 1.0, 2.0))
    assert here.names == sorted(["job", "claim"] * len(kept))


def test_a_request_goes_on_with_its_callers_trace_and_keeps_its_decision() -> None:
    tracer = Traced().tracer
    context, caller_span = tracer.receive(CALLER)
    assert f"{context.trace_id:032x}" == CALLER.split("-")[1]
    assert caller_span == 0xF067AA0BA902B7 != context.span_id
    assert context.is_sampled
    assert not tracer.receive(CALLER.removesuffix("01") + "00")[0].is_sampled


@pytest.mark.parametrize("header", [None, "", "garbage", "00-0-0-0", "é\0", CALLER.replace("4bf9", "zzzz")])
def test_a_request_without_a_callers_trace_begins_one(header: str | None) -> None:
    context, caller_span = Traced().tracer.receive(header)
    assert caller_span is None
    assert context.trace_id
    assert context.is_sampled


def test_a_service_has_the_name_that_the_environment_gives_it_or_else_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, name in ((None, "test"), ("research", "research")):
        if variable is not None:
            monkeypatch.setenv("OTEL_SERVICE_NAME", variable)
        traced = Traced()
        traced.tracer.export(Span("job", TRACE, None, 1.0, 2.0))
        assert traced.spans[0].resource.attributes["service.name"] == name


class Broken(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("no room")


def test_a_span_that_cannot_be_exported_harms_nobody() -> None:
    tracer = OtelTracer(Broken(), {})
    with capture_logs() as lines:
        tracer.export(Span("claim", TRACE, 1, 1.0, 2.0))
    assert [line["event"] for line in lines] == ["span_not_exported"]


class Undecided(StaticSampler):
    def should_sample(self, *args: Any, **more: Any) -> SamplingResult:
        raise RuntimeError("no answer")


def test_a_sampler_that_fails_leaves_everything_untraced() -> None:
    traced = Traced()
    traced.tracer._provider.sampler = Undecided(Decision.DROP)
    with capture_logs() as lines:
        assert not traced.tracer.samples(TRACE)
        context, caller_span = traced.tracer.receive(CALLER)
    assert not context.is_sampled
    assert caller_span == 0xF067AA0BA902B7
    assert [line["event"] for line in lines] == ["trace_not_sampled"] * 2


class Stuck(InMemorySpanExporter):
    def export(self, spans: object) -> object:  # type: ignore[override]
        time.sleep(5)
        return super().export([])


def test_neither_export_nor_flush_waits_for_a_collector_that_hangs() -> None:
    tracer = OtelTracer(BatchSpanProcessor(Stuck(), schedule_delay_millis=10), {})
    began = time.monotonic()
    for _ in range(3_000):
        tracer.export(Span("claim", TRACE, 1, 1.0, 2.0))
    tracer.flush(0.2)
    assert time.monotonic() - began < 4
