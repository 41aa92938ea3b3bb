"""Equality of parsed expressions, matrices, relations and sets."""

from __future__ import annotations

import pytest

from ponder_worker.verify.mathematics.formula import parse
from ponder_worker.verify.mathematics.formula_equality import are_equal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-x > -1", "x < 1"),
        ("2x + 4y = 3", "y = 3/4 - x/2"),
        (r"1 < x \le 2", r"2 \ge x > 1"),
        (r"|x| < 1", "-1 < x < 1"),
        (r"\begin{pmatrix} 0.5 & 2 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} & 1+1 \end{pmatrix}"),
        ("x + 1", "1 + x"),
    ],
)
def test_equal_things_are_equal_both_ways(one: str, other: str) -> None:
    assert are_equal(parse(one), parse(other))
    assert are_equal(parse(other), parse(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x < 1", r"x \le 1"),
        ("x < 1", "x > 1"),
        ("x + y = 3", "x + y"),
        ("x = 1", "y = 1"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \end{pmatrix}"),
        ("y^2 = x^2", "y = x"),
    ],
)
def test_different_things_are_not(one: str, other: str) -> None:
    assert not are_equal(parse(one), parse(other))
    assert not are_equal(parse(other), parse(one))
