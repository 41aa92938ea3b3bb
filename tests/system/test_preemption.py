"""Workers that vanish in the middle of a best-of-8, with and without a notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from fleet import LEASE_S, Fleet, children, is_alive, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TOKENS = 500
HALF = 8 * TOKENS // 2


def _begin(fleet: Fleet) -> None:
    """A best-of-8 that is half-way on one of two workers."""
    fleet.start_dispatcher()
    fleet.start_workers(2)
    fleet.submit(1, max_tokens=TOKENS)
    until(lambda: fleet.num_saved_tokens() >= HALF, 60)


def _check_nothing_was_decoded_twice(fleet: Fleet, saved: dict[tuple[int, int], list[int]]) -> None:
    """`saved` holds the deltas of all attempts: a token that two of them made would be in it twice."""
    settled = fleet.settled_ids()
    assert [len(ids) for ids in settled.values()] == [TOKENS] * 8
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved


def _wait_for_the_next(fleet: Fleet, num_saved: int) -> float:
    """Until another attempt has saved tokens of its own; returns the seconds that it took."""
    since = time.monotonic()
    until(lambda: len(fleet.outcomes()) == 2 and fleet.num_saved_tokens() > num_saved, LEASE_S + 20)
    return time.monotonic() - since


def test_after_kill_9_of_a_worker_another_goes_on_from_its_last_tick(fleet: Fleet) -> None:
    _begin(fleet)
    first = fleet.holder()
    family = children(first.pid)
    first.kill()
    first.wait()
    num_saved = fleet.num_saved_tokens()
    print(f"the next worker went on after {_wait_for_the_next(fleet, num_saved):.1f} s")
    until(lambda: not any(map(is_alive, family)), 5)
    saved = fleet.saved_ids()
    until(lambda: fleet.num_pending() == 0, 60)
    _check_nothing_was_decoded_twice(fleet, saved)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "settled"]
    fleet.check_ledgers()


def test_after_kill_9_of_an_engine_process_its_parent_ends_and_gives_up_the_lease(fleet: Fleet) -> None:
    _begin(fleet)
    first = fleet.holder()
    os.kill(fleet.engine_pid(first), signal.SIGKILL)
    assert first.wait(10) != 0
    num_saved = fleet.num_saved_tokens()
    print(f"the next worker went on after {_wait_for_the_next(fleet, num_saved):.1f} s")
    saved = fleet.saved_ids()
    until(lambda: fleet.num_pending() == 0, 60)
    _check_nothing_was_decoded_twice(fleet, saved)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "settled"]
    fleet.check_ledgers()


@pytest.mark.parametrize(
    ("by", "send"),
    [
        pytest.param(signal.SIGTERM, os.kill, id="SIGTERM"),
        pytest.param(signal.SIGTERM, os.killpg, id="SIGTERM to all its processes"),
        pytest.param(signal.SIGINT, os.killpg, id="Ctrl-C"),
    ],
)
def test_a_worker_that_is_told_to_go_hands_every_token_back_and_exits_with_0(
    fleet: Fleet, by: signal.Signals, send: Callable[[int, int], None]
) -> None:
    _begin(fleet)
    first = fleet.holder()
    family = children(first.pid)
    told_at = time.monotonic()
    send(first.pid, by)
    assert first.wait(10) == 0
    print(f"{by.name} to exit: {time.monotonic() - told_at:.2f} s")
    until(lambda: not any(map(is_alive, family)), 2)
    num_saved = fleet.num_saved_tokens()
    print(f"the next worker went on after {_wait_for_the_next(fleet, num_saved):.1f} s")
    saved = fleet.saved_ids()
    until(lambda: fleet.num_pending() == 0, 60)
    _check_nothing_was_decoded_twice(fleet, saved)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["preempted", "settled"]
    assert fleet.scalar("SELECT end_reason FROM incarnations WHERE state = 'ended'") == by.name
    fleet.check_ledgers()


def test_a_worker_whose_engine_hangs_loses_its_lease(fleet: Fleet) -> None:
    _begin(fleet)
    first = fleet.holder()
    os.kill(fleet.engine_pid(first), signal.SIGSTOP)
    assert first.wait(LEASE_S + 10) != 0
    until(lambda: fleet.num_pending() == 0, 60)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "settled"]
    fleet.check_ledgers()


def test_a_worker_that_comes_back_after_its_lease_is_refused_and_throws_its_results_away(fleet: Fleet) -> None:
    _begin(fleet)
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
