r"""Quotes, Markdown, delimiters and `\text{…}` around an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.wrapping import unset, unwrapped, whole_text, without_text


def test_set_text_can_be_left_out_or_kept_as_words() -> None:
    assert without_text(r"5\text{ cm}^2") == "5^2"
    assert unset(r"5\text{ cm}") == "5cm"
    assert unset(r"5\text{cm}", around=" ") == "5 cm "


def test_a_command_and_the_word_behind_it_stay_two() -> None:
    assert unset(r"5\mu\text{m}") == r"5\mu m"


def test_only_a_text_that_is_set_as_a_whole_is_one() -> None:
    assert whole_text(r"\text{New York}") == "New York"
    assert whole_text(r"\text{New} York") is None
    assert whole_text(r"\text{a}\text{b}") is None


@given(st.sampled_from(["$%s$", "**%s**", '"%s"', "`%s`", "<%s>", r"\(%s\)", "$$%s$$"]), st.integers())
def test_what_is_put_around_all_of_an_answer_is_taken_away(wrapper: str, number: int) -> None:
    assert unwrapped(wrapper % number) == str(number)


@pytest.mark.parametrize("line", ["$1$ and $2$", "**a** or **b**", "x < 5", "<", '"a" and "b"'])
def test_marks_that_stand_around_parts_are_kept(line: str) -> None:
    assert unwrapped(line) == line
