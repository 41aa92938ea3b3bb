"""The exact value of an expression of whole numbers, as far as it is of bounded size."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import sympy

_MOST_BITS = 60_000
"""Of numerator and denominator: some 18,000 digits, which take milliseconds to multiply."""
_MOST_FACTORS = 4_000


def rational(expression: Any) -> Fraction | None:
    """Worked out with sums, products, powers and factorials alone; None for anything else, and for larger numbers."""
    try:
        return _value(expression)
    except (ZeroDivisionError, RecursionError):
        return None


def _value(expression: Any) -> Fraction | None:
    if isinstance(expression, sympy.Rational):
        return _bounded(Fraction(int(expression.p), int(expression.q))) if expression.q else None
    if not isinstance(expression, (sympy.Add, sympy.Mul, sympy.Pow, sympy.factorial)):
        return None
    values = []
    for argument in expression.args:
        value = _value(argument)
        if value is None:
            return None
        values.append(value)
    if isinstance(expression, sympy.Pow):
        return _power(*values)
    return _factorial(*values) if isinstance(expression, sympy.factorial) else _joined(expression, values)


def _joined(expression: Any, values: list[Fraction]) -> Fraction | None:
    result: Fraction | None = values[0]
    for value in values[1:]:
        if result is None:
            return None
        result = _bounded(result + value if isinstance(expression, sympy.Add) else result * value)
    return result


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1 or (base == 0 and exponent <= 0):
        return None
    if _num_bits(base) * abs(exponent.numerator) > _MOST_BITS and abs(base) != 1:
        return None
    return base**exponent.numerator


def _factorial(value: Fraction) -> Fraction | None:
    if value.denominator != 1 or not 0 <= value <= _MOST_FACTORS:
        return None
    return Fraction(math.factorial(value.numerator))


def _bounded(value: Fraction) -> Fraction | None:
    return value if _num_bits(value) <= _MOST_BITS else None


def _num_bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
