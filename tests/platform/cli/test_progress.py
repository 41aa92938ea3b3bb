from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.cli.progress import Pace, Snapshot, outlook


def snapshot(at_s: float, share: float, tokens: int = 0, num_done: int = 0) -> Snapshot:
    return Snapshot(at_s, num_done, 0, 100, share, tokens, 0, "in progress", "")


def _total(estimate: float | None, low: float = 0, high: float = 0) -> dict[str, Any]:
    return {"estimate": estimate, "low": low, "high": high}


def _projection(runs_out: str | None = None, in_s: float | None = None, budget: str = "batch") -> dict[str, Any]:
    lasts = {"budget": budget, "measure": "dollars", "runs_out": runs_out, "seconds": _total(in_s, 50, 70)}
    return {
        "total_nanodollars": _total(2e9, 1.5e9, 3e9),
        "seconds_left": _total(90, 60, 120),
        "budget": None if runs_out is None else lasts,
    }


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ((None,), ""),
        (("no",), ", the budget lasts"),
        (("maybe", 60.0), ", the batch's budget of dollars may run out in 1 min 00 s (50 s to 1 min 10 s)"),
        (("yes", 60.0), ", the batch's budget of dollars runs out in 1 min 00 s (50 s to 1 min 10 s)"),
        (("yes", None, "tenant_day"), ", the tenant's budget of dollars of the day runs out"),
    ],
)
def test_the_outlook_tells_cost_end_and_budget_with_their_intervals(budget: Any, said: str) -> None:
    assert outlook(_projection(*budget)) == (
        f"$2.00 ($1.50 to $3.00) in the end, done in 1 min 30 s (1 min 00 s to 2 min 00 s){said}"
    )


def test_nothing_is_said_of_what_nobody_knows() -> None:
    assert outlook(None) == ""
    assert outlook(_projection() | {"total_nanodollars": _total(None)}) == ""
    assert outlook(_projection() | {"seconds_left": _total(None)}) == "$2.00 ($1.50 to $3.00) in the end"


def pace(*snapshots: Snapshot) -> Pace:
    made = Pace()
    for one in snapshots:
        made.add(one)
    return made


def test_the_time_left_is_that_of_the_work_and_not_of_the_jobs() -> None:
    assert pace(snapshot(0, 0.2), snapshot(10, 0.4)).left_s() == 30


def test_starting_does_not_count_as_working() -> None:
    assert pace(snapshot(0, 0), snapshot(30, 0.1), snapshot(31, 0.2)).left_s() == 8


def test_nothing_done_tells_nothing_about_the_time_left() -> None:
    assert pace(snapshot(0, 0)).left_s() is None
    assert pace(snapshot(0, 0), snapshot(5, 0)).left_s() is None


def test_tokens_are_counted_over_the_last_seconds_only() -> None:
    assert pace(snapshot(0, 0.1, 0), snapshot(40, 0.2, 1_000), snapshot(50, 0.3, 2_000)).tokens_per_s() == 100


def test_it_is_still_only_when_nothing_was_settled_for_a_while() -> None:
    assert not pace(snapshot(0, 0.1, num_done=5)).is_still()
    assert pace(snapshot(0, 0.1, num_done=5), snapshot(3, 0.1, num_done=5)).is_still()
    assert not pace(snapshot(0, 0.1, num_done=5), snapshot(3, 0.1, num_done=6)).is_still()


def test_the_sparkline_shows_the_pace_of_the_last_minute() -> None:
    steps = [(float(second), 0.0, 1_000 * min(second, 30)) for second in range(0, 61, 1)]
    drawn = pace(*(snapshot(*step) for step in steps)).sparkline()
    assert drawn == "█" * 10 + "▁" * 10


@given(st.lists(st.tuples(st.floats(0.01, 20), st.integers(0, 10**9)), min_size=1, max_size=80))
def test_any_sparkline_has_at_most_twenty_steps(moves: list[tuple[float, int]]) -> None:
    made, at_s, tokens = Pace(), 0.0, 0
    for passed_s, added in moves:
        at_s, tokens = at_s + passed_s, tokens + added
        made.add(snapshot(at_s, 0.0, tokens))
    drawn = made.sparkline()
    assert len(drawn) <= 20
    assert set(drawn) <= set("▁▂▃▄▅▆▇█")
