from __future__ import annotations

import threading

from ponder.jobs.claim import ClaimedJob
from ponder_worker.parent.worker_capacity import WorkerCapacity


def _job(job_id: int) -> ClaimedJob:
    return ClaimedJob(job_id, "t", "b", {}, [])


def _holding(room_tokens: int) -> WorkerCapacity:
    holding = WorkerCapacity()
    holding.admit(True)
    holding.report(room_tokens, 0)
    return holding


def _waits(holding: WorkerCapacity, tokens: int) -> tuple[threading.Thread, list[bool]]:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(holding.wait_for_room(tokens, 5)), daemon=True)
    thread.start()
    thread.join(0.05)
    return thread, answers


def test_the_largest_shard_runs_alone() -> None:
    assert _holding(10).wait_for_room(1_000_000, 0)


def test_room_is_what_the_engine_said_less_what_was_handed_over_since() -> None:
    holding = _holding(100)
    holding.add([_job(1)], 60)
    assert holding.room_tokens == 40
    asked = holding.admitted_tokens
    holding.add([_job(2)], 20)
    holding.report(50, asked)
    assert holding.room_tokens == 30


def test_a_shard_waits_until_there_is_room() -> None:
    holding = _holding(100)
    holding.add([_job(1)], 60)
    thread, answers = _waits(holding, 50)
    assert thread.is_alive()
    holding.report(100, holding.admitted_tokens)
    thread.join(5)
    assert answers == [True]


def test_waiting_for_room_ends() -> None:
    holding = _holding(100)
    holding.add([_job(1)], 60)
    assert not holding.wait_for_room(50, 0.01)


def test_nothing_is_taken_by_a_worker_that_leaves() -> None:
    holding = _holding(100)
    holding.add([_job(1)], 60)
    thread, answers = _waits(holding, 50)
    holding.close()
    thread.join(5)
    assert answers == [False]
    assert not holding.wait_for_room(1, 0)


def test_nothing_is_taken_past_the_lease_until_postgres_answers_again() -> None:
    holding = _holding(100)
    holding.admit(False)
    thread, answers = _waits(holding, 1)
    assert thread.is_alive()
    holding.admit(True)
    thread.join(5)
    assert answers == [True]
