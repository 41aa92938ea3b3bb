"""The exact value of an expression of whole numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.verify.mathematics.formula import parse
from ponder_worker.verify.mathematics.formula_exact import rational


@given(st.fractions(), st.fractions())
def test_sums_and_products_are_exact(one: Fraction, other: Fraction) -> None:
    left, right = (sympy.Rational(number.numerator, number.denominator) for number in (one, other))
    assert rational(sympy.Add(left, right, evaluate=False)) == one + other
    assert rational(sympy.Mul(left, right, evaluate=False)) == one * other


@pytest.mark.parametrize("text", ["x", r"\sqrt{2}", r"\pi", "10^{100000}", "5000!"])
def test_what_is_no_rational_number_of_bounded_size_has_none(text: str) -> None:
    assert rational(parse(text)) is None
