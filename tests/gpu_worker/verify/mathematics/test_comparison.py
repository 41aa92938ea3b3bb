"""Answers compared as mathematics."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.verifier import Math
from ponder_worker.answers.writing import plain
from ponder_worker.verify.mathematics.comparison import Comparison

FREE = Comparison(Math())
KEPT = Comparison(Math(order="kept"))


def same(found: str, wanted: str, comparison: Comparison = FREE) -> bool:
    return comparison.same(plain(found), plain(wanted))


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5), st.randoms())
def test_the_order_of_a_list_counts_only_where_it_is_kept(numbers: list[int], random: object) -> None:
    turned = numbers[::-1]
    one, other = ", ".join(map(str, numbers)), ", ".join(map(str, turned))
    assert same(one, other)
    assert same(one, other, KEPT) == (numbers == turned)
    assert same(f"({one})", f"({other})") == (numbers == turned)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\pm 3", "3, -3"),
        (r"1 \pm \sqrt{2}", r"1 + \sqrt{2}, 1 - \sqrt{2}"),
        ("x = 1, 2", "1, 2"),
        ("x = 1 or x = 2", r"\{1, 2\}"),
        ("(a, b) = (1, 2)", "b = 2, a = 1"),
        ("x = 3, y = 4", "(3, 4)"),
        (r"(0,1) \cup (2,3)", r"(2,3) \cup (0,1)"),
        ("x = y = 3", "y = x = 3"),
        ("2x + 4y = 3", "y = 3/4 - x/2"),
        (r"x \in [0, 1)", r"0 \le x < 1"),
        ("5 < x < 7", "x > 5, x < 7"),
        ("a b", r"b \cdot a"),
        ("1.234,56", "1234.56"),
    ],
)
def test_one_answer_in_two_forms_is_one(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1, 2", "1, 2, 3"),
        ("1, 1, 2", "1, 2, 2"),
        ("[1, 2)", "(1, 2)"),
        (r"\{1, 2\}", "(1, 2)"),
        ("x = 1, 2", "x = 1, y = 2"),
        ("(1, 2)", "b = 1, a = 2"),
        ("x = 3", "x = y = 3"),
        ("x < 5", "y < 5"),
        ("x < 5", r"x \le 5"),
        ("x = 5", "y = 5"),
        ("5", "x + y = 5"),
    ],
)
def test_different_answers_are_never_one(one: str, other: str) -> None:
    assert not same(one, other)
    assert not same(other, one)


FORMULAS = [
    ("(a + b)^2", "a^2 + 2ab + b^2"),
    (r"\frac{a}{b} + 1", r"\frac{a + b}{b}"),
    ("a < b + 1", "b > a - 1"),
    (r"\sqrt{a^2 b^2}", "|ab|"),
    ("a > 3", "3 < a"),
    (r"2^{a + 1} - b", r"2 \cdot 2^a - b"),
    ("2a + 4b = 3", "b = 3/4 - a/2"),
]
LETTERS = st.lists(st.sampled_from("abcfghkmnpqrstuvwxyz"), min_size=2, max_size=2, unique=True)


def renamed(formula: str, letters: list[str]) -> str:
    return re.sub(
        r"(?<![A-Za-z\\])[ab]{1,2}(?![A-Za-z])", lambda run: run[0].translate({97: letters[0], 98: letters[1]}), formula
    )


@given(st.sampled_from(FORMULAS), LETTERS, LETTERS)
def test_formulas_are_equal_in_whatever_letters_but_only_in_the_same(
    pair: tuple[str, str], letters: list[str], others: list[str]
) -> None:
    one, other = pair
    assert same(renamed(one, letters), renamed(other, letters))
    if not set(letters) & set(others):
        assert not same(renamed(one, letters), renamed(other, others))


NAMES = st.sampled_from(["x", "y", "n", "k", "a_1", r"\alpha", "f(x)", "AB"])


@given(NAMES, NAMES, st.integers(-99, 99))
def test_a_value_belongs_to_its_name(one: str, other: str, number: int) -> None:
    assert same(f"{one} = {number}", str(number))
    assert same(f"{one} = {number}", f"{other} = {number}") == (one == other)
    assert not same(f"{one} = {number}", f"{one} = {number + 1}")
