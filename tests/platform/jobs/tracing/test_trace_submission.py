"""What the dispatcher tells of jobs' traces."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.jobs.dispatching.sweep import sweep
from ponder.jobs.tracing.origin import origin_of
from ponder.jobs.tracing.trace_loss import trace_loss
from ponder.jobs.tracing.trace_submission import trace_submission
from ponder.trace import attempt_span, job_span, trace_of

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
from spans import Traced, ids, seconds

SUBMISSION = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _batch(world: Any, num_jobs: int = 1) -> str:
    """Makes a traced batch."""
    batch_id = str(world.batch(num_jobs))
    world.sql("UPDATE batches SET traceparent = :it WHERE id = :id", it=SUBMISSION, id=batch_id)
    return batch_id


def _published(world: Any, traced: Traced) -> list[int]:
    shard_ids: list[int] = world.dispatch()
    with world.engine.connect() as connection:
        trace_submission(connection, traced.tracer, shard_ids)
    return shard_ids


def _lose(world: Any, traced: Traced, incarnation_id: str) -> None:
    world.lapse(incarnation_id)
    swept = sweep(world.engine, shard_tokens=world.shard_tokens)
    with world.engine.connect() as connection:
        trace_loss(connection, traced.tracer, [one.incarnation_id for one in swept])


def test_each_job_that_is_published_for_the_first_time_has_been_submitted(world: Any) -> None:
    traced = Traced()
    batch_id = _batch(world, 3)
    world.worker(room_tokens=1_000)
    _published(world, traced)
    assert {ids(span)[0] for span in traced.named("submission")} == {
        trace_of(batch_id, job_id) for job_id in world.jobs(batch_id)
    }
    for span in traced.spans:
        assert span.parent is not None
        assert span.parent.span_id == job_span(ids(span)[0])
        assert [f"{link.context.trace_id:032x}" for link in span.links] == [SUBMISSION.split("-")[1]]
        assert seconds(span)[0] <= seconds(span)[1]


def test_a_batch_that_was_submitted_without_traces_has_none(world: Any) -> None:
    traced = Traced()
    world.batch(2)
    world.worker(room_tokens=1_000)
    (shard_id,) = _published(world, traced)
    assert traced.spans == ()
    with world.engine.connect() as connection:
        assert origin_of(connection, shard_id) is None


def test_a_job_that_was_handed_back_is_ready_since_then_and_was_submitted_once(world: Any) -> None:
    traced = Traced()
    batch_id = _batch(world)
    worker = world.worker(room_tokens=1_000)
    (shard_id,) = _published(world, traced)
    world.claim(shard_id, worker)
    world.release(worker)
    world.worker(room_tokens=1_000)
    (again,) = _published(world, traced)
    assert traced.names == ["submission"]
    (ended_at,) = world.sql("SELECT CAST(extract(epoch FROM ended_at) AS float8) FROM attempts")[0]
    with world.engine.connect() as connection:
        origin = origin_of(connection, again)
    assert origin is not None
    assert origin.traceparent == SUBMISSION
    assert origin.ready_at == {world.jobs(batch_id)[0]: ended_at}
    assert origin.submitted_at < ended_at


def test_the_attempt_of_a_lost_worker_ends_in_the_trace_and_so_does_a_job_lost_three_times(world: Any) -> None:
    traced = Traced()
    batch_id = _batch(world)
    (job_id,) = world.jobs(batch_id)
    trace_id = trace_of(batch_id, job_id)
    expected = []
    for _ in range(3):
        worker = world.worker(room_tokens=1_000)
        (shard_id,) = _published(world, traced)
        assert world.claim(shard_id, worker) is not None
        expected.append(attempt_span(trace_id, shard_id, worker))
        _lose(world, traced, worker)
    assert [ids(span) for span in traced.named("attempt")] == [(trace_id, span_id) for span_id in expected]
    assert {dict(span.attributes or {})["ponder.outcome"] for span in traced.named("attempt")} == {"lost"}
    (root,) = traced.named("job")
    assert ids(root) == (trace_id, job_span(trace_id))
    assert dict(root.attributes or {})["ponder.state"] == "failed"
    for span in traced.spans:
        assert seconds(root)[0] <= seconds(span)[0] <= seconds(span)[1] <= seconds(root)[1]
