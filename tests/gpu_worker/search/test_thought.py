"""Thoughts, measured in a sample's ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ponder_worker.search.thought import Thought, ThoughtWatch, find, rfind

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


@pytest.mark.parametrize(
    ("prompt", "ids", "span"),
    [
        ([1], [], (0, None)),  # it may still think
        ([1], [OPEN, 2, CLOSE, 4, OPEN, CLOSE], (1, 2)),
        ([1], [5, OPEN, 2, CLOSE], None),  # a mark in the answer
        ([1, OPEN, CLOSE], [5, CLOSE, OPEN], None),
        ([1, OPEN], [5, CLOSE, OPEN, CLOSE], (0, 1)),
    ],
)
def test_before_a_structure_only_a_mark_that_comes_first_opens_a_thought(
    prompt: list[int], ids: list[int], span: tuple[int, int | None] | None
) -> None:
    assert replace(THOUGHT, is_strict=True).span(prompt, ids) == span


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


@pytest.mark.parametrize(
    ("thought", "prompt", "ids", "first_visible"),
    [
        (THOUGHT, [1], [OPEN, 2, 3, CLOSE, 4, 5], 4),
        (THOUGHT, [1], [5, OPEN, 2, CLOSE, 4], 4),
        (THOUGHT, [1, OPEN], [2, 3, 95, CLOSE, 4], 4),  # it was made to answer
        (THOUGHT, [1, OPEN, CLOSE], [2, 3], 0),
        (THOUGHT, [1], [2] * 12, 7),  # by then it is certain that it does not think
        (THOUGHT, [1], [OPEN, 2, 3], None),
        (THOUGHT, [1], [OPEN, *[2] * 30, CLOSE, 4], 32),
        (replace(THOUGHT, is_strict=True), [1], [5, OPEN, 2, CLOSE], 0),
        (replace(THOUGHT, close_ids=(91, 92)), [1], [OPEN, 2, 91, 91, 92, 4], 5),
        (Thought((), (), "", (95,), 10), [1], [2, 3, 95, 4], 3),
    ],
)
def test_the_first_visible_token_is_the_first_after_the_thought(
    thought: Thought, prompt: list[int], ids: list[int], first_visible: int | None
) -> None:
    for step in (1, 2, 3):  # however many tokens come at a time
        watch = ThoughtWatch(thought, len(prompt), len(prompt))
        ends = [*range(step, len(ids), step), len(ids)]
        seen = [end for end in ends if watch.is_over(prompt + ids[:end])]
        expected = [end for end in ends if first_visible is not None and end > first_visible]
        assert seen == expected
