"""Workers that vanish in the middle of a best-of-8, with and without a notice."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from fleet import LEASE_S, Fleet, until
from process_tree import children, is_alive

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TOKENS = 1000


def _begin(fleet: Fleet, num_workers: int = 2, tokens: int = TOKENS) -> None:
    """A best-of-8 that is on its way on one of the workers."""
    fleet.start_dispatcher()
    fleet.start_workers(num_workers)
    fleet.submit(1, max_tokens=tokens)
    until(lambda: fleet.num_saved_tokens() >= tokens, 60)


def _check_nothing_was_decoded_twice(fleet: Fleet, saved: dict[tuple[int, int], list[int]]) -> None:
    """`saved` holds the deltas of all attempts: a token that two of them made would be in it twice."""
    settled = fleet.settled_ids()
    assert [len(ids) for ids in settled.values()] == [TOKENS] * 8
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved


def _wait_for_the_next(fleet: Fleet, num_attempts: int) -> None:
    """Until another attempt has saved tokens of its own."""
    since, num_saved = time.monotonic(), fleet.num_saved_tokens()
    until(
        lambda: len(fleet.outcomes()) == num_attempts and fleet.num_saved_tokens() > num_saved,
        LEASE_S + 20,
    )
    print(f"the next worker went on after {time.monotonic() - since:.1f} s")


def test_after_kill_9_of_a_worker_or_an_engine_process_another_goes_on_from_the_last_tick(fleet: Fleet) -> None:
    _begin(fleet, num_workers=3)
    first = fleet.holder()
    family = children(first.pid)
    first.kill()
    first.wait()
    _wait_for_the_next(fleet, num_attempts=2)
    until(lambda: not any(map(is_alive, family)), 5)
    second = fleet.holder()
    os.kill(fleet.engine_pid(second), signal.SIGKILL)
    assert second.wait(10) != 0
    _wait_for_the_next(fleet, num_attempts=3)
    saved = fleet.saved_ids()
    until(lambda: fleet.num_pending() == 0, 60)
    _check_nothing_was_decoded_twice(fleet, saved)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "lost", "settled"]
    fleet.check_ledgers()


def test_a_worker_that_is_told_to_go_hands_every_token_back_and_exits_with_0(fleet: Fleet) -> None:
    """Three in turn, each by another way of telling it, and a fourth who finishes."""
    _begin(fleet, num_workers=4)
    ways = [("SIGTERM", os.kill), ("SIGTERM", os.killpg), ("SIGINT", os.killpg)]
    for number, (name, send) in enumerate(ways, start=2):
        holder = fleet.holder()
        family = children(holder.pid)
        told_at = time.monotonic()
        send(holder.pid, signal.Signals[name])
        assert holder.wait(10) == 0
        print(f"{name} to exit: {time.monotonic() - told_at:.2f} s")
        until(lambda family=family: not any(map(is_alive, family)), 2)  # type: ignore[misc]
        _wait_for_the_next(fleet, num_attempts=number)
    saved = fleet.saved_ids()
    until(lambda: fleet.num_pending() == 0, 60)
    _check_nothing_was_decoded_twice(fleet, saved)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["preempted"] * 3 + ["settled"]
    reasons = fleet.rows("SELECT end_reason FROM incarnations WHERE state = 'ended' ORDER BY billed_until")
    assert [row.end_reason for row in reasons] == [name for name, _ in ways]
    fleet.check_ledgers()


def test_a_worker_whose_engine_hangs_loses_its_lease(fleet: Fleet) -> None:
    _begin(fleet, tokens=400)
    first = fleet.holder()
    os.kill(fleet.engine_pid(first), signal.SIGSTOP)
    assert first.wait(LEASE_S + 10) != 0
    until(lambda: fleet.num_pending() == 0, 60)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "settled"]
    fleet.check_ledgers()


def test_a_worker_that_comes_back_after_its_lease_is_refused_and_throws_its_results_away(fleet: Fleet) -> None:
    _begin(fleet, tokens=400)
    first = fleet.holder()
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: fleet.num_pending() == 0, 90)
    answers = fleet.rows("SELECT * FROM results")
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(10) != 0
    assert fleet.rows("SELECT * FROM results") == answers
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "settled"]
    fleet.check_ledgers()


def test_a_worker_that_is_told_to_go_while_it_loads_goes(fleet: Fleet) -> None:
    worker = fleet.start_worker()
    until(lambda: fleet.scalar("SELECT count(*) FROM incarnations") == 1, 30)
    worker.terminate()
    assert worker.wait(10) == 0
    assert fleet.scalar("SELECT state FROM incarnations") == "ended"
    fleet.check_ledgers()


def test_a_job_that_kills_its_workers_fails_alone(fleet: Fleet) -> None:
    """One of nine jobs is poison: a worker that holds it for a while dies."""
    fleet.start_dispatcher()
    fleet.start_workers(2, "--max-sequences", "4")
    fleet.submit(9, max_tokens=TOKENS, strategy={"name": "direct"})
    poison = until(lambda: fleet.scalar("SELECT id FROM jobs WHERE custom_id = 'job-4'"), 30)
    company = []
    for _ in range(3):
        holder = until(lambda: _holder_of(fleet, poison), 120)
        open_attempts = "SELECT count(*) FROM attempts WHERE incarnation_id = :id AND ended_at IS NULL"
        company.append(fleet.scalar(open_attempts, id=holder.id))
        os.kill(holder.pid, signal.SIGKILL)
        until(lambda: _holder_of(fleet, poison) is None, LEASE_S + 30)
        fleet.start_worker("--max-sequences", "4")
    print(f"jobs that its holders held: {company}")
    assert company[-1] == 1, "a suspect runs alone"
    until(lambda: fleet.num_pending() == 0, 120)
    failed = fleet.rows("SELECT job_id, error FROM results WHERE error IS NOT NULL")
    assert [(row.job_id, row.error["code"]) for row in failed] == [(poison, "worker_lost")]
    assert fleet.scalar("SELECT count(*) FROM jobs WHERE state = 'completed'") == 8
    fleet.check_ledgers()


def _holder_of(fleet: Fleet, job_id: int) -> Any:
    rows = fleet.rows(
        "SELECT incarnations.id, pid FROM attempts JOIN incarnations ON incarnations.id = incarnation_id"
        " WHERE job_id = :id AND attempts.ended_at IS NULL",
        id=job_id,
    )
    return rows[0] if rows else None
