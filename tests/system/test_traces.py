"""The trace of a job through real processes, each of which exports to a collector by OTLP."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest
from fleet import Fleet, until

from ponder.domain.batch.endpoint import CHAT
from ponder.store.first_key import ensure_operator_key

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")
from otlp_collector import Collected, Collector, collecting

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
PROMPT, REFERENCE, KEY = "A secret of the user?", "1234567", "pk-of-nobody-else"


@pytest.fixture
def collector(fleet: Fleet) -> Iterator[Collector]:
    with collecting() as collector:
        fleet.environment |= collector.environment
        yield collector


def _submit(fleet: Fleet, port: int) -> str:
    """Submits one job of two rounds by the API, as a caller that traces itself."""
    with fleet.engine.begin() as connection:
        ensure_operator_key(connection, KEY, tenant="home", name="test")
    fleet.start("serve", "--port", str(port))
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": CHAT,
        "body": {
            "model": "slow",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 300,
            "ponder": {
                "strategy": {"name": "best_of_n", "n": 8, "select": "best"},
                "max_rounds": 2,
                "verifier": {"name": "exact"},
                "reference": REFERENCE,
                "oracle": True,
            },
        },
    }
    headers = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/v1", headers=headers) as http:
        until(lambda: _is_up(http), 30)
        upload = {"file": ("in.jsonl", json.dumps(line).encode())}
        file = http.post("/files", files=upload, data={"purpose": "batch"}).raise_for_status().json()
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "1h"}
        batch = http.post("/batches", json=body).raise_for_status().json()
        assert batch["ponder"]["trace_id"] == CALLER
        return str(batch["id"])


def _is_up(http: httpx2.Client) -> bool:
    try:
        return http.get("/models").status_code == 200
    except httpx2.TransportError:
        return False


def _job(port: int, job: str) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {KEY}"}
    found = httpx2.get(f"http://127.0.0.1:{port}/v1/jobs/{job}", headers=headers).raise_for_status().json()
    assert isinstance(found, dict)
    return found


def test_a_preempted_job_has_one_trace_from_its_submission_to_its_settlement(
    fleet: Fleet, collector: Collector, free_port: int
) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(2)
    batch_id = _submit(fleet, free_port)
    until(lambda: fleet.num_saved_tokens() >= 200, 60)
    first = fleet.holder()
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    until(lambda: fleet.num_pending() == 0, 90)
    until(lambda: any(span.name == "job" for span in collector.spans), 20)

    job_id = f"job_{fleet.scalar('SELECT id FROM jobs')}"
    trace_id = str(_job(free_port, job_id)["trace_id"])
    assert _job(free_port, trace_id)["id"] == job_id, "a job is found by its trace"
    spans = [span for span in collector.spans if span.trace_id == trace_id]
    _check_tree(spans)
    root = next(span for span in spans if span.name == "job")
    assert root.attributes["ponder.verdict"] == "failed"
    assert (root.attributes["ponder.job.id"], root.attributes["ponder.batch.id"]) == (job_id, batch_id)
    assert root.links == [CALLER]
    attempts = sorted((span for span in spans if span.name == "attempt"), key=lambda span: span.began_ns)
    assert [span.attributes["ponder.outcome"] for span in attempts] == ["preempted", "settled"]
    assert len({span.attributes["ponder.incarnation.id"] for span in attempts}) == 2
    assert {span.service for span in spans} == {"ponder-dispatcher", "ponder-worker"}
    _check_batch(collector, batch_id)
    for request in collector.requests:
        assert not any(secret.encode() in request.body for secret in (PROMPT, REFERENCE, KEY))


def _check_tree(spans: list[Collected]) -> None:
    """Checks who belongs to whom. A child may seem to begin before its parent by what two clocks differ."""
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    parents = Counter((span.name, by_id[span.parent_id].name if span.parent_id else "") for span in spans)
    assert parents.keys() == {
        ("job", ""),
        ("submission", "job"),
        ("queueing", "job"),
        ("attempt", "job"),
        ("claim", "attempt"),
        ("round", "attempt"),
        ("prefill", "round"),
        ("scoring", "round"),
        ("verification", "attempt"),
        ("verification", "round"),
        ("tick", "attempt"),
        ("settlement", "attempt"),
    }
    assert (parents["job", ""], parents["submission", "job"], parents["settlement", "attempt"]) == (1, 1, 1)
    assert parents["queueing", "job"] == parents["attempt", "job"] == parents["claim", "attempt"] == 2
    for span in spans:
        assert span.began_ns <= span.ended_ns
        if span.parent_id:
            parent = by_id[span.parent_id]
            assert parent.began_ns - 50_000_000 <= span.began_ns, (span, parent)
            assert span.ended_ns <= parent.ended_ns + 50_000_000, (span, parent)


def _check_batch(collector: Collector, batch_id: str) -> None:
    """Checks the trace of the caller, to which the batch belongs."""
    of_caller = {span.name: span for span in collector.spans if span.trace_id == CALLER}
    submission, validation = of_caller["submission"], of_caller["validation"]
    assert (submission.service, submission.parent_id) == ("ponder-api", "00f067aa0ba902b7")
    assert (validation.service, validation.parent_id) == ("ponder-dispatcher", submission.id)
    assert {span.attributes["ponder.batch.id"] for span in of_caller.values()} == {batch_id}
