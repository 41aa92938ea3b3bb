from __future__ import annotations

from typing import Any

from ponder.jobs.dispatching.sweep import sweep


def _files(world: Any, batch: str) -> tuple[bool, bool]:
    (row,) = world.sql("SELECT output_file_id, error_file_id FROM batches WHERE id = :id", id=batch)
    files = {file.id: file.kind for file in world.sql("SELECT id, kind FROM files WHERE batch_id = :id", id=batch)}
    assert files == {
        id: kind for id, kind in ((row.output_file_id, "output"), (row.error_file_id, "errors")) if id is not None
    }
    return row.output_file_id is not None, row.error_file_id is not None


def test_a_batch_is_completed_with_its_last_job(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(first)])
    assert world.finish() == 0

    world.tick(worker, settled=[world.passed(second)])
    assert world.finish() == 1
    assert world.finish() == 0

    (row,) = world.sql("SELECT * FROM batches")
    assert row.state == "completed"
    assert row.in_progress_at < row.finalizing_at <= row.completed_at
    assert _files(world, batch) == (True, False)


def test_a_batch_of_rejected_lines_is_completed_with_an_error_file(world: Any) -> None:
    batch = world.batch(0)
    world.sql("INSERT INTO rejected_lines (batch_id, line, code, message) VALUES (:id, 1, 'x', 'x')", id=batch)
    world.finish()
    assert world.state(batch) == "completed"
    assert _files(world, batch) == (False, True)


def test_a_cancelled_batch_ends_when_its_workers_have_let_go(world: Any) -> None:
    batch = world.batch(20)
    worker = world.worker()
    held, queued = world.dispatch()
    jobs = [job.job_id for job in world.claim(held, worker).jobs]
    world.tick(worker, settled=[world.passed(jobs[0])], deltas={jobs[1]: [{}]})
    world.cancel(batch)
    assert world.finish() == 0
    assert world.state(batch) == "cancelling"

    world.tick(worker)
    assert world.finish() == 1
    assert world.state(batch) == "cancelled"
    assert world.states(batch) == ["completed"] + ["cancelled"] * 19
    assert {row.state for row in world.sql("SELECT state FROM shards")} == {"finished"}
    assert world.sql("SELECT 1 FROM tree_deltas") == []
    assert _files(world, batch) == (True, True)
    assert world.claim(queued, worker) is None


def test_a_late_batch_expires_with_its_pending_jobs_and_workers_are_told(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(first)])
    world.sql("UPDATE batches SET expires_at = clock_timestamp()")

    assert world.finish() == 1

    assert world.state(batch) == "expired"
    assert world.states(batch) == ["completed", "expired"]
    assert world.tick(worker, settled=[world.passed(second)], work=world.work(second)).dropped == (second,)
    assert world.states(batch) == ["completed", "expired"]
    assert _files(world, batch) == (True, True)
    world.billed(worker)


def test_a_huge_late_batch_expires_at_once_and_its_rows_follow_in_parts(world: Any) -> None:
    batch = world.batch(20_001, expires_in_s=-1)
    assert world.finish() == 1
    assert world.state(batch) == "expired"
    assert _files(world, batch) == (False, True)
    assert world.states(batch).count("pending") == 1
    assert world.finish() == 0
    assert set(world.states(batch)) == {"expired"}
    assert world.sql("SELECT 1 FROM batches WHERE followed_line IS NOT NULL") == []


def test_before_the_rows_follow_nothing_of_a_late_batch_settles_and_its_cost_is_that_of_expired_jobs(
    world: Any,
) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.sql("UPDATE batches SET state = 'expired', expired_at = clock_timestamp(), followed_line = 0")
    reply = world.tick(worker, settled=[world.passed(first)], work=world.work(first, second))
    assert reply.dropped == (first, second)
    assert world.states(batch) == ["pending", "pending"]
    assert "cancelled" in world.kinds(worker)
    world.finish()
    assert world.states(batch) == ["expired", "expired"]
    world.billed(worker)


def test_jobs_of_a_stopped_batch_are_not_handed_on_when_their_worker_dies(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    world.claim_all(worker)
    world.cancel(batch)
    world.lapse(worker)
    sweep(world.engine, shard_tokens=world.shard_tokens)
    assert world.sql("SELECT 1 FROM shards WHERE state <> 'finished'") == []
    world.finish()
    assert (world.state(batch), world.states(batch)) == ("cancelled", ["cancelled", "cancelled"])


def test_a_job_that_completes_while_its_batch_expires_is_in_an_output_file(world: Any) -> None:
    batch = world.batch(20_001)
    world.sql("UPDATE batches SET expires_at = clock_timestamp()")
    world.finish()
    assert _files(world, batch) == (False, True)
    world.sql("UPDATE jobs SET state = 'completed', verdict = 'passed' WHERE line = 20001")
    world.finish()
    assert _files(world, batch) == (True, True)
