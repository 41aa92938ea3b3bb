"""The answer in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.answer import as_number, canonical, extract, of_reference, unfenced


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("84 - 78 = 6\nAnswer: 6", "6"),
        ("Answer: 6\nAnswer: -7\n", "-7"),
        ("so 5 + 4 = 9\n#### 9", "9"),
        (r"thus \boxed{\frac{1}{2}} and \boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"The final answer is $\boxed{14{,}916}$. I hope it is correct.", r"14{,}916"),
        ("**Answer:** 12.", "12"),
        ("The answer is $42$.", "42"),
        ("we get 3, then 1,234.5", "1,234.5"),
        ("<think>Answer: 3</think>It is 4", "4"),
        (r"an open \boxed{1", "1"),
        ("nothing at all", None),
        ("", None),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{a \boxed{b} c}", "b"),
        ("} Answer : ** 5", "5"),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("She sold 72 clips.\n#### 72", "72"), ("x^2 + 1", "x^2 + 1"), (r"$\boxed{7}$", "7"), (" 12 \n", "12")],
)
def test_a_reference_without_a_mark_is_the_answer_itself(reference: str, answer: str) -> None:
    assert of_reference(reference) == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [("1,000.0", "$1000$"), ("5.", "5"), (r"\dfrac12", r"\frac12"), ("-0", "0"), ("1e3", "1000"), (" a  b ", "a b")],
)
def test_answers_that_differ_in_writing_only_are_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def test_long_numbers_are_one_only_where_every_digit_is() -> None:
    one = "1" * 40
    assert canonical(one) == canonical(one + ".0")
    assert canonical(one) != canonical(one[:-1] + "2")
    assert canonical(one + "00") == canonical(one + "e2")


@given(st.text())
def test_any_text_has_an_answer_or_none(text: str) -> None:
    answer = extract(text)
    assert answer is None or answer in text
    canonical(text)
    as_number(text)
    of_reference(text)


def test_a_whole_text_is_taken_out_of_its_code_fence() -> None:
    assert unfenced('```json\n{"a": 1}\n```') == '{"a": 1}'
    assert unfenced(' {"a": 1} ') == '{"a": 1}'


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    ["answer" + " " * 10**6, "\\boxed{" * 10**5, "answer " * 10**5, "#" * 10**6, "9," * 10**5],
    ids=lambda text: text[:8],
)
def test_a_text_that_repeats_itself_for_ever_is_read_in_one_pass(text: str) -> None:
    """A pass takes a fraction of a second; a second glance at every letter would take hours."""
    extract(text)
    canonical(text)
