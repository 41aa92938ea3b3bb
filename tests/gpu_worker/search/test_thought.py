"""Thoughts, measured in a sample's ids."""

from __future__ import annotations

import pytest

from ponder_worker.search.thought import Thought, find, rfind

OPEN, CLOSE = 90, 91
THOUGHT = Thought((OPEN,), (CLOSE,), "</think>", (95, CLOSE), answer_tokens=10)


@pytest.mark.parametrize(
    ("prompt", "ids", "num", "is_open"),
    [
        ([1], [OPEN, 2, 3], 2, True),
        ([1], [OPEN, 2, 3, CLOSE, 4], 2, False),
        ([1], [5, OPEN, 2], 1, True),  # a line break before the mark
        ([1, OPEN], [2, 3], 2, True),  # the template has opened it
        ([1, OPEN, 5], [2, CLOSE, 3], 1, False),
        ([1, OPEN, CLOSE, 5], [2, 3], 0, False),  # the template says that it shall not think
        ([1], [2] * 9, 0, False),  # it does not think
        ([1, OPEN, *[1] * 20], [2] * 9, 0, False),  # a mark in what the user wrote
        ([1, CLOSE, *[1] * 20, OPEN], [2], 1, True),
    ],
)
def test_a_thought_is_measured_without_the_marks_around_it(
    prompt: list[int], ids: list[int], num: int, is_open: bool
) -> None:
    assert THOUGHT.measure(prompt, ids) == (num, is_open)


def test_without_marks_all_is_thought_until_it_is_made_to_answer() -> None:
    unmarked = Thought((), (), "", (95,), 10)
    assert unmarked.measure([1], [2, 3]) == (2, True)
    assert unmarked.measure([1], [2, 3, 95, 4]) == (2, False)


def test_an_answer_keeps_its_tokens_but_a_quarter_of_the_sample_at_most() -> None:
    assert THOUGHT.latest_end(100) == 100 - 2 - 10
    assert THOUGHT.latest_end(20) == 20 - 2 - 5
    assert THOUGHT.latest_end(2) is None


def test_runs_of_ids_are_found_from_either_end() -> None:
    assert find((1, 2), [1, 1, 2, 1, 2], 0) == 1
    assert rfind((1, 2), [1, 1, 2, 1, 2]) == 3
    assert find((1, 2), [1, 1], 0) is None
    assert rfind((3,), [1, 1]) is None
