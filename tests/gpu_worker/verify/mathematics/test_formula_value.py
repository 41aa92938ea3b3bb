"""Expressions compared by their values at several points."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.verify.mathematics.formula import parse
from ponder_worker.verify.mathematics.formula_value import Undecided, points, rational, rounds_to, same_expression


def same(one: str, other: str) -> bool:
    return same_expression(parse(one), parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(x+1)^2", "x^2+2x+1"),
        (r"\sin^2 x", r"1-\cos^2 x"),
        (r"\sum_{k=0}^{n} k", r"\frac{n(n+1)}{2}"),
        (r"\sum_{k=0}^{n} \binom{n}{k}", "2^n"),
        (r"\prod_{k=1}^{n} k", "n!"),
        (r"\sum_{k=1}^{\infty} \frac{1}{k^2}", r"\frac{\pi^2}{6}"),
        (r"\int_0^{1} 2x dx", "1"),
        (r"\frac{d}{dx} x^2", "2x"),
        (r"\lim_{x \to 0} \frac{\sin x}{x}", "1"),
    ],
)
def test_one_value_in_two_forms_is_one_and_found_soon(one: str, other: str) -> None:
    begun = time.process_time()
    assert same(one, other)
    assert time.process_time() - begun < 2.5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\prod_{k=1}^{n} k", "n^2"),
        (r"\sum_{k=0}^{n} k", r"\frac{n(n+1)}{2} + 1"),
        ("x + 10^{-60}", "x"),
        (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
        (r"\int_0^{1} x dx", r"\int_0^{2} x dx"),
        (r"\sqrt{x^2}", "x"),
    ],
)
def test_a_difference_is_seen_however_small(one: str, other: str) -> None:
    assert not same(one, other)


def test_what_a_sum_counts_up_to_is_a_whole_number() -> None:
    n, x = sympy.symbols("n x")
    for point in points(sympy.Sum(x, (sympy.Symbol("k"), 1, n))):
        assert point[n].is_Integer
        assert not point[x].is_Integer


def test_numbers_with_more_digits_than_are_computed_are_undecided() -> None:
    with pytest.raises(Undecided):
        same("10^{50000} + e", r"10^{50000} + \pi")


def test_a_decimal_stands_for_a_number_only_where_it_is_rounded_right() -> None:
    assert rounds_to(sympy.pi, sympy.Rational("3.14159"), 5)
    assert not rounds_to(sympy.pi, sympy.Rational("3.14158"), 5)
    assert not rounds_to(sympy.Symbol("x"), sympy.Rational(3), 5)


@given(st.fractions(), st.fractions())
def test_sums_and_products_are_exact(one: Fraction, other: Fraction) -> None:
    left, right = (sympy.Rational(number.numerator, number.denominator) for number in (one, other))
    assert rational(sympy.Add(left, right, evaluate=False)) == one + other
    assert rational(sympy.Mul(left, right, evaluate=False)) == one * other


@pytest.mark.parametrize("text", ["x", r"\sqrt{2}", r"\pi", "10^{100000}", "5000!"])
def test_what_is_no_rational_number_of_bounded_size_has_none(text: str) -> None:
    assert rational(parse(text)) is None
