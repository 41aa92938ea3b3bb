from __future__ import annotations

from ponder.cli.progress import Pace, Snapshot


def snapshot(at_s: float, share: float, tokens: int = 0, num_done: int = 0) -> Snapshot:
    return Snapshot(at_s, num_done, 0, 100, share, tokens, 0, "in progress", "")


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
