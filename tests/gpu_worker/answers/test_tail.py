"""The answer behind a label, and the remarks around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.tail import read_line, read_tail, without_remarks


def behind(label: str, rest: str) -> str | None:
    return read_tail(label + rest, len(label))


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        ("7", "7"),
        ("7. I hope it is correct.", "7"),
        ("$7$. So it is.", "7"),
        ("\n\n7\n\nDone.", "7"),
        ("\n$$\\frac{1}{2}$$", r"\frac{1}{2}"),
        ("\n\\[ x = 5 \\]", "x = 5"),
        ("\n```\n42\n```", "42"),
        ("\n- 42", "42"),
        ("\n\\begin{align*}\nx &= 3 \\\\\n&= 5\n\\end{align*}", "= 5"),
        ("3.14.", "3.14"),
        ("$1.5. What$", "1.5. What"),
        ("J. K. Rowling", "J. K. Rowling"),
        ("J.R.R. Tolkien", "J.R.R. Tolkien"),
        ("Dr. No", "Dr. No"),
        ("C. Paris", "C"),
        ("4!", "4!"),
    ],
)
def test_the_answer_ends_with_its_sentence_or_block(rest: str, answer: str) -> None:
    assert behind("Answer: ", rest) == answer


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        ("12!", "12"),
        ("12! Great", "12"),
        ("$4!$", "4!"),
        ("Paris since it is the capital.", "Paris"),
        ("J. K. Rowling. She wrote it.", "J. K. Rowling"),
        ("Washington D.C. It is the capital.", "Washington D.C"),
    ],
)
def test_a_sentence_may_exclaim_and_go_on_with_a_reason(rest: str, answer: str) -> None:
    assert behind("The answer is ", rest) == answer


def test_nothing_behind_a_label_is_no_answer() -> None:
    assert behind("Answer:", "") is None
    assert behind("Answer:", " \n\n ") is None


def test_a_line_is_read_as_it_is() -> None:
    assert read_line("Answer: (C) since A is wrong.  \nB", 7) == "(C) since A is wrong."


@given(st.text(), st.integers(0, 50))
def test_reading_behind_any_place_never_raises_and_invents_nothing(text: str, place: int) -> None:
    found = read_tail(text, min(place, len(text)))
    assert found is None or set(found) <= set(text)


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
