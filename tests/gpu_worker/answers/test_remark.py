"""What a model writes around its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.remark import unwrapped, without_remarks


def answer(line: str) -> str:
    return without_remarks(line, is_sentence=False)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("about 12", "12"),
        ("Around $12$", "12"),
        ("therefore approximately 3.5 meters", "3.5 meters"),
        ("12 (since 6*2 = 12)", "12"),
        ("12 because 6*2 = 12", "12"),
        ("12 since 6*2 = 12", "12"),
        ("x, where x is even", "x"),
        ("12 (rounded)", "12"),
        ("12 - I think", "12"),
        ("12<|eot_id|>", "12"),
        ("12 // checked", "12"),
        ("The largest n is 34", "34"),
        ("twelve (12)", "12"),
        ("two hundred and five (205)", "205"),
        ("**12** apples", "12 apples"),
        ("12}", "12"),
        ('"12", "sure": true}', "12"),
    ],
)
def test_remarks_are_no_part_of_an_answer(line: str, wanted: str) -> None:
    assert answer(line) == wanted


@pytest.mark.parametrize(
    "title",
    [
        "Around the World", "About Time", "About a Boy", "Just Kids", "Still Life", "Now", "Live since 1990", "as is",
        "Where the Wild Things Are", "The capital is Paris", "Harry Potter (2005)", "Jean-Luc Picard", "So What",
        "Rock and Roll", "(1, 2)", "C++", ".NET", "f(x) = |x|",
    ],
)  # fmt: skip
def test_words_that_begin_remarks_elsewhere_stay_in_titles(title: str) -> None:
    assert answer(title) == title


@given(st.sampled_from(["$%s$", "**%s**", '"%s"', "`%s`", "<%s>", r"\(%s\)", "$$%s$$"]), st.integers())
def test_what_is_put_around_all_of_an_answer_is_taken_away(wrapper: str, number: int) -> None:
    assert unwrapped(wrapper % number) == str(number)


@pytest.mark.parametrize("line", ["$1$ and $2$", "**a** or **b**", "x < 5", "<", '"a" and "b"'])
def test_marks_that_stand_around_parts_are_kept(line: str) -> None:
    assert unwrapped(line) == line
