"""The traces of submissions, and where the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ponder.trace import Tracer, trace_hex, trace_of

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
from spans import Traced, ids

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
def tracer(traced: Traced) -> Tracer:
    return traced.tracer


@pytest.fixture
def submit(http: httpx2.Client, line: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    import json

    files = {"file": ("in.jsonl", json.dumps(line("a")).encode())}
    file = http.post("/v1/files", files=files, data={"purpose": "batch"}).json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}

    def post(**headers: str) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found: dict[str, Any] = http.post("/v1/batches", json=body, headers=named).raise_for_status().json()
        return found

    return post


def test_a_batch_belongs_to_the_trace_of_its_caller(submit: Any, traced: Traced) -> None:
    batch = submit(traceparent=f"00-{CALLER}-00f067aa0ba902b7-01")
    (span,) = traced.spans
    assert span.name == "submission"
    assert f"{ids(span)[0]:032x}" == batch["ponder"]["trace_id"] == CALLER
    assert span.parent is not None
    assert span.parent.span_id == 0xF067AA0BA902B7
    assert dict(span.attributes or {})["ponder.batch.id"] == batch["id"]


def test_a_caller_that_does_not_record_its_trace_is_followed_in_that(submit: Any, traced: Traced) -> None:
    assert submit(traceparent=f"00-{CALLER}-00f067aa0ba902b7-00")["ponder"]["trace_id"] == CALLER
    assert traced.spans == ()


def test_a_batch_of_a_caller_without_a_trace_begins_one(submit: Any, traced: Traced) -> None:
    batch = submit()
    (span,) = traced.spans
    assert f"{ids(span)[0]:032x}" == batch["ponder"]["trace_id"]
    assert span.parent is None


def test_a_repeated_submission_has_no_second_span(submit: Any, traced: Traced) -> None:
    first, second = submit(idempotency_key="k"), submit(idempotency_key="k")
    assert first["ponder"]["trace_id"] == second["ponder"]["trace_id"]
    assert len(traced.spans) == 1


def test_a_job_and_its_trace_name_each_other(
    submit: Any, worker: Any, passed: Any, http: httpx2.Client, stranger: httpx2.Client
) -> None:
    batch = submit()
    worker.validate()
    worker.work(passed)
    (job,) = http.get(f"/v1/batches/{batch['id']}/jobs").json()["data"]
    trace_id = job["trace_id"]
    assert trace_id == trace_hex(trace_of(batch["id"], int(job["id"].removeprefix("job_"))))
    assert http.get(f"/v1/jobs/{trace_id}").json()["id"] == job["id"]
    assert http.get(f"/v1/jobs/{trace_id}/tree").json()["job_id"] == job["id"]
    for path in (f"/v1/jobs/{trace_id}", f"/v1/jobs/{trace_id}/tree"):
        assert stranger.get(path).status_code == 404
    for path in (f"/v1/jobs/{'f' * 32}", f"/v1/jobs/{'f' * 32}/tree", f"/v1/jobs/job_{'9' * 30}/tree"):
        assert http.get(path).status_code == 404
    other = trace_hex(trace_of("batch_0", int(job["id"].removeprefix("job_"))))
    assert http.get(f"/v1/jobs/{other}").status_code == 404, "the same number in another deployment"


def test_a_retried_batch_has_a_trace_of_its_own(
    submit: Any, worker: Any, failed: Any, http: httpx2.Client, traced: Traced
) -> None:
    batch = submit()
    worker.validate()
    worker.work(failed)
    retried = http.post(f"/v1/batches/{batch['id']}/retry").raise_for_status().json()
    assert retried["ponder"]["trace_id"] != batch["ponder"]["trace_id"]
    assert len(traced.named("submission")) == 2
