"""Workers that are asked to leave while they search."""

from __future__ import annotations

import time

import pytest
from fleet import Fleet, until

from ponder.jobs.drain import ask_to_drain

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TOKENS = 1000


def _ask_holder_to_drain(fleet: Fleet, within_s: float) -> float:
    """Returns after how many seconds it was gone, with nothing left in its hands."""
    holder = fleet.holder()
    incarnation_id = fleet.scalar("SELECT id FROM incarnations WHERE pid = :pid", pid=holder.pid)
    asked_at = time.monotonic()
    with fleet.engine.begin() as connection:
        assert ask_to_drain(connection, incarnation_id, within_s=within_s)
    assert holder.wait(within_s + 10) == 0
    return time.monotonic() - asked_at


def test_a_worker_that_is_asked_to_drain_finishes_what_fits_and_hands_back_the_rest(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(2)
    fleet.submit(1, max_tokens=TOKENS)
    until(lambda: fleet.num_saved_tokens() >= TOKENS, 60)

    assert 1 < _ask_holder_to_drain(fleet, within_s=1) < 6
    saved = fleet.saved_ids()
    assert fleet.outcomes()[0] == "preempted"
    until(lambda: fleet.num_saved_tokens() > sum(map(len, saved.values())), 30)
    assert _ask_holder_to_drain(fleet, within_s=60) < 60

    assert fleet.outcomes() == ["preempted", "settled"]
    settled = fleet.settled_ids()
    assert [len(ids) for ids in settled.values()] == [TOKENS] * 8
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved
    reasons = fleet.rows("SELECT DISTINCT state, end_reason FROM incarnations")
    assert [tuple(row) for row in reasons] == [("ended", "a request to drain")]
    fleet.check_settled_once(1)
    fleet.check_ledgers()
