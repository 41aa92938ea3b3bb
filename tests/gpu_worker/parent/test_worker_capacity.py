from __future__ import annotations

import threading

from ponder_worker.parent.worker_capacity import WorkerCapacity

from ..claimed_job import claimed_job


def _capacity(room_tokens: int) -> WorkerCapacity:
    capacity = WorkerCapacity()
    capacity.admit(True)
    capacity.report(room_tokens, 0)
    return capacity


def _waits(capacity: WorkerCapacity, tokens: int) -> tuple[threading.Thread, list[bool]]:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(capacity.wait_for_room(tokens, 5)), daemon=True)
    thread.start()
    thread.join(0.05)
    return thread, answers


def test_the_largest_shard_runs_alone() -> None:
    assert _capacity(10).wait_for_room(1_000_000, 0)


def test_room_is_what_the_engine_said_less_what_was_handed_over_since() -> None:
    capacity = _capacity(100)
    capacity.add([claimed_job(1)], 60)
    assert capacity.room_tokens == 40
    asked = capacity.admitted_tokens
    capacity.add([claimed_job(2)], 20)
    capacity.report(50, asked)
    assert capacity.room_tokens == 30


def test_a_shard_waits_until_there_is_room() -> None:
    capacity = _capacity(100)
    capacity.add([claimed_job(1)], 60)
    thread, answers = _waits(capacity, 50)
    assert thread.is_alive()
    capacity.report(100, capacity.admitted_tokens)
    thread.join(5)
    assert answers == [True]


def test_waiting_for_room_ends() -> None:
    capacity = _capacity(100)
    capacity.add([claimed_job(1)], 60)
    assert not capacity.wait_for_room(50, 0.01)


def test_nothing_is_taken_by_a_worker_that_leaves() -> None:
    capacity = _capacity(100)
    capacity.add([claimed_job(1)], 60)
    thread, answers = _waits(capacity, 50)
    capacity.close()
    thread.join(5)
    assert answers == [False]
    assert not capacity.wait_for_room(1, 0)


def test_nothing_is_taken_past_the_lease_until_postgres_answers_again() -> None:
    capacity = _capacity(100)
    capacity.admit(False)
    thread, answers = _waits(capacity, 1)
    assert thread.is_alive()
    capacity.admit(True)
    thread.join(5)
    assert answers == [True]
