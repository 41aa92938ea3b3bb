"""Answers that are equal by their writing alone."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.equality import Relation, assigned, canonical, identity, interval_of
from ponder_worker.answers.writing import plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000.0", "$1000$"),
        ("5.", "5"),
        (r"\dfrac12", r"\frac12"),
        ("-0", "0"),
        ("1e3", "1000"),
        (" a  b ", "a b"),
        ("0.5", "1/2"),
        ("x = 5", "5"),
        ("−5", "-5"),
        ("28%", "28"),
        (r"5\text{ cm}", "5"),
        ("2, 1", "1, 2"),
        (r"\{1, 2\}", "1 and 2"),
        ("( 1 ,2 )", "(1,2)"),
        ("Paris", r"\text{paris}"),
        (r"\left(x+1\right)", "(x + 1)"),
        ("x<=5", r"x \leq 5"),
        (r"e^2 \approx 7.39", "e^2"),
        ("A black dog", "a black Dog"),
    ],
)
def test_answers_that_differ_in_writing_only_are_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("(1, 2)", "(2, 1)"), ("[1, 2)", "(1, 2)"), ("x", "X"), ("12", "1, 2"), ("n!", "n"), ("x<5", "x>5"), ("5x", "5")],
)
def test_answers_that_mean_something_else_are_two(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_long_numbers_are_one_only_where_every_digit_is() -> None:
    one = "1" * 40
    assert canonical(one) == canonical(one + ".0")
    assert canonical(one) != canonical(one[:-1] + "2")
    assert canonical(one + "00") == canonical(one + "e2")


def test_programs_are_compared_by_their_text() -> None:
    assert canonical("x = 1\nprint(x)") != canonical("x = 1\nprint(x) # 2")


@given(st.text())
def test_normalising_never_raises_and_does_nothing_twice(text: str) -> None:
    canonical(text)
    identity(text)
    assert plain(plain(text)) == plain(plain(plain(text)))


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_two_numbers_are_one_answer_only_where_they_are_equal(one: Fraction, other: Fraction) -> None:
    assert (canonical(str(one)) == canonical(str(other))) == (one == other)


@pytest.mark.parametrize(
    ("sides", "signs", "interval"),
    [
        (("x", "3"), (">",), ("(", "3", r"\infty", ")")),
        (("3", "x"), ("<",), ("(", "3", r"\infty", ")")),
        (("x", "5"), ("<=",), ("(", r"-\infty", "5", "]")),
        (("x", "3"), (">=",), ("[", "3", r"\infty", ")")),
        (("2", "x", "5"), ("<", "<="), ("(", "2", "5", "]")),
        (("2", "x", "5"), ("<=", "<"), ("[", "2", "5", ")")),
        (("5", "x", "2"), (">=", ">"), ("(", "2", "5", "]")),
        (("2", "3", "x"), ("<", "<"), None),
        (("2", "x", "5"), ("<", ">"), None),
    ],
)
def test_an_inequality_about_one_name_is_an_interval(
    sides: tuple[str, ...], signs: tuple[str, ...], interval: tuple[str, str, str, str] | None
) -> None:
    found = interval_of(Relation(sides, signs))
    assert (None if found is None else (found.opening, *found.items, found.closing)) == interval


@pytest.mark.parametrize(
    ("sides", "signs", "wanted"),
    [
        (("x", "5"), ("=",), ("x", "5")),
        (("5", "x"), ("=",), ("x", "5")),
        (("x", "2 + 3", "5"), ("=", "="), ("x", "5")),
        (("x", "y", "5"), ("=", "="), ("x=y", "5")),
        ((r"\text{Area}", "5"), ("=",), ("area", "5")),
        (("84/2", "42"), ("=",), ("", "42")),
        (("x", "S"), ("in",), ("x", "S")),
        (("x", "3.14"), ("~",), ("x", "3.14")),
        (("|AB|", "5", "5.01"), ("=", "~"), ("|AB|", "5")),
        (("e^2", "7.39"), ("~",), ("", "e^2")),
        (("x", "3"), ("<",), None),
        (("x", "y", "S"), ("=", "in"), None),
        (("x^2", "4"), ("=",), None),
    ],
)
def test_an_equation_assigns_its_last_exact_side_to_the_names_before_it(
    sides: tuple[str, ...], signs: tuple[str, ...], wanted: tuple[str, str] | None
) -> None:
    assert assigned(Relation(sides, signs)) == wanted
