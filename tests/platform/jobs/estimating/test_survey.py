"""Surveys of batches: kept when they begin, and what is left of them as jobs settle."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.jobs.estimating.sizer import JobSize
from ponder.jobs.estimating.survey import MOST_GROUPS, JobGroup, Survey, stored_survey


def _survey(*numbers: int) -> Survey:
    groups = [
        JobGroup(JobSize(("f", "direct", str(level)), 1, 100, 40, 0, 12.0), "demo", False, number, number * 100)
        for level, number in enumerate(numbers)
    ]
    return Survey(groups={(place,): group for place, group in enumerate(groups)})


def _jobs(survey: Survey) -> dict[str, float]:
    return {group.size.key[2]: group.num_jobs for group in survey.groups.values()}


def _stored(world: Any, batch: str) -> Survey:
    with world.engine.connect() as connection:
        found = stored_survey(connection, batch)
    assert found is not None
    return found


def test_of_a_sorted_file_the_hard_jobs_are_left() -> None:
    left = _survey(100, 100).remaining({("f", "direct", "0"): 90.0}, 110)
    assert _jobs(left) == pytest.approx({"0": 10, "1": 100})


def test_jobs_that_no_cell_accounts_for_are_taken_from_all() -> None:
    left = _survey(100, 50).remaining({("f", "direct", "0"): 60.0}, 45)
    assert _jobs(left) == pytest.approx({"0": 20, "1": 25})


@given(
    numbers=st.lists(st.integers(1, 1_000), min_size=1, max_size=8),
    settled=st.lists(st.floats(0, 2_000), min_size=8, max_size=8),
    num_pending=st.integers(1, 10_000),
)
def test_what_is_left_adds_up_to_the_pending_jobs_and_their_caps_stay(
    numbers: list[int], settled: list[float], num_pending: int
) -> None:
    cells = {("f", "direct", str(level)): number for level, number in enumerate(settled)}
    left = _survey(*numbers).remaining(cells, num_pending)
    assert sum(_jobs(left).values()) == pytest.approx(num_pending)
    assert all(group.cap == pytest.approx(100 * group.num_jobs) for group in left.groups.values())


def test_a_batch_keeps_the_survey_of_its_jobs(desk: Any, world: Any) -> None:
    easy = [desk.line(f"e{number}", metadata={"level": "easy"}) for number in range(3)]
    hard = [desk.line(f"h{number}", metadata={"level": "hard"}, max_tokens=50) for number in range(2)]
    found = _stored(world, desk.batch(*easy, *hard, desk.line("e0")))
    assert _jobs(found) == {"easy": 3, "hard": 2}
    assert (found.num_lines, found.num_refused, found.fingerprints) == (6, 1, {"f0"})


def test_a_million_levels_make_no_million_groups(desk: Any, world: Any) -> None:
    lines = (desk.line(str(number), metadata={"level": str(number)}) for number in itertools.count())
    found = _stored(world, desk.batch(*itertools.islice(lines, MOST_GROUPS + 100)))
    assert len(found.groups) == MOST_GROUPS + 1
    assert sum(_jobs(found).values()) == MOST_GROUPS + 100
