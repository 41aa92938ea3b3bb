"""The ids of traces, and what needs no OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from ponder.trace import TraceContext, attempt_span, job_in, job_span, log_ids, trace_of


@given(st.integers(1, 2**63 - 1))
def test_a_job_is_found_in_its_trace(job_id: int) -> None:
    trace_id = trace_of("batch_1", job_id)
    assert job_in(trace_id) == job_id
    assert 0 < trace_id < 2**128


def test_equally_numbered_jobs_of_two_deployments_have_different_traces() -> None:
    assert trace_of("batch_1", 7) != trace_of("batch_2", 7)


def test_a_sampler_by_the_last_64_bits_takes_its_share_of_neighbouring_jobs() -> None:
    kept = sum(trace_of("batch_1", number) % 2**64 < 2**64 // 10 for number in range(1, 10_001))
    assert 900 < kept < 1_100


def test_spans_of_a_trace_have_ids_of_their_own_that_every_process_knows() -> None:
    trace_id = trace_of("batch_1", 7)
    spans = {job_span(trace_id), attempt_span(trace_id, 1, "inc_a"), attempt_span(trace_id, 1, "inc_b")}
    assert len(spans) == 3
    assert attempt_span(trace_id, 1, "inc_a") in spans


def test_a_context_is_written_and_read() -> None:
    context = TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xF067AA0BA902B7, True)
    assert context.traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert TraceContext.parse(context.traceparent) == context


def test_a_line_of_the_log_names_a_trace_only_if_there_is_one() -> None:
    assert log_ids("batch_1", 7, is_traced=False) == {"job": 7, "batch": "batch_1"}
    assert log_ids("batch_1", 7, is_traced=True)["trace"] == f"{trace_of('batch_1', 7):032x}"


def test_a_service_that_does_not_trace_loads_no_sdk() -> None:
    program = """
import sys
from ponder.settings import Settings
from ponder.tracing import start_tracing
assert start_tracing("api", Settings()) is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PATH": "/usr/bin", "OTEL_TRACES_EXPORTER": "none"}
    )
