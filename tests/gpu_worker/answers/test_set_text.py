"""Words that are set as text within a formula."""

from __future__ import annotations

from ponder_worker.answers.set_text import unset, whole_text, without_text


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
