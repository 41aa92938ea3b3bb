"""Compares expressions by their values at several points.

Math-Verify's own comparison rounds to six places whatever the size of a number, so that 1/2004! equals 1/2006!. Here
whole numbers and fractions are exact, and other differences are computed to hundreds of digits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

_DIGITS = 50
_MOST_DIGITS = 400
"""Digits behind the point. sympy uses as many of them as a difference needs to have `_DIGITS` of its own."""
_MOST_WHOLE_DIGITS = 4_000
_SAME = -300
"""Decimal exponent. The computed difference of equal terms of size 1 is about 1e-400."""
_NUM_POINTS = 4
_DEFINITE = 3
"""Length of the limits of a definite integral: the variable and both bounds."""
_MOST_TERMS = 40
"""Terms, at a point, of a sum that counts up to a symbol."""
_MOST_BITS = 60_000
"""Bits of a numerator or denominator. These are some 18,000 digits, which take milliseconds to multiply."""
_MOST_FACTORS = 4_000


class Undecided(Exception):
    """Two numbers have more digits than are computed here."""


def same_expression(one: sympy.Expr, other: sympy.Expr) -> bool:
    if one == other:
        return True
    one, other = _concrete(_worked_out(one)), _concrete(_worked_out(other))
    num_seen = 0
    for point in points(one, other):
        is_same = agree(one, other, point)
        if is_same is False:
            return False
        num_seen += is_same is not None
    return num_seen > 0 or bool(sympy.simplify(one - other).is_zero)


def _worked_out(expression: sympy.Expr) -> sympy.Expr:
    """Computes derivatives, limits and definite integrals, because sympy is slow to approximate them."""

    def has_value(part: Any) -> bool:
        is_definite = isinstance(part, sympy.Integral) and all(len(limit) == _DEFINITE for limit in part.limits)
        return is_definite or isinstance(part, (sympy.Derivative, sympy.Limit))

    return expression.replace(has_value, lambda part: part.doit())


def _concrete(expression: sympy.Expr) -> sympy.Expr:
    """Replaces each function that only has a name by a fixed one, so that it has a value."""

    def some(function: Any) -> Any:
        factors = random.Random(str(function.func))  # noqa: S311
        return sympy.sin(sum(argument * factors.randint(2, 99) / 7 for argument in function.args) + 1)

    return expression.replace(lambda part: isinstance(part, AppliedUndef), some)


def points(*expressions: sympy.Expr) -> Iterator[dict[Any, Any]]:
    """Yields fixed numbers for the symbols. Expressions that agree at all points are equal.

    A symbol that a sum or product counts up to gets whole numbers, and there are more points then.
    """
    symbols = sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)
    if not symbols:
        yield {}
        return
    series = [part for expression in expressions for part in expression.atoms(sympy.Sum, sympy.Product)]
    whole = {symbol for part in series for limit in part.limits for end in limit[1:] for symbol in end.free_symbols}
    source = random.Random(1)  # noqa: S311
    for number in range(2 * _NUM_POINTS if whole else _NUM_POINTS):
        signs = (1,) if number < 2 else (-1, 1)
        yield {
            symbol: sympy.Integer(source.randint(1, _MOST_TERMS))
            if symbol in whole
            else sympy.Rational(source.choice(signs) * source.randint(100, 2900), 997)
            for symbol in symbols
        }


def value_at(expression: sympy.Expr, point: dict[Any, Any], most_digits: int = _MOST_DIGITS) -> Any:
    """Returns the value to fifty digits, or None if it is not a finite number."""
    try:
        value = _summed(expression, point).evalf(_DIGITS, subs=point, maxn=most_digits)
    except (ValueError, TypeError, ArithmeticError, NotImplementedError, RecursionError):
        return None
    parts = value.as_real_imag() if isinstance(value, sympy.Expr) else ()
    return value if parts and all(part.is_Number and part.is_finite for part in parts) else None


def _summed(expression: sympy.Expr, point: dict[Any, Any]) -> sympy.Expr:
    """Computes sums and products at a point. sympy would interpolate between whole numbers."""
    if not expression.has(sympy.Sum, sympy.Product):
        return expression

    def has_ends(part: Any) -> bool:
        is_series = isinstance(part, (sympy.Sum, sympy.Product))
        return is_series and all(end.is_number for limit in part.limits for end in limit[1:])

    return expression.xreplace(point).replace(has_ends, lambda part: part.doit())


def agree(one: sympy.Expr, other: sympy.Expr, point: dict[Any, Any]) -> bool | None:
    """Returns whether both have the same value at a point, or None if either has none.

    Raises Undecided if they differ by less than is computed for numbers of their size.
    """
    one, other = _summed(one, point), _summed(other, point)
    exactly = rational(one.xreplace(point)), rational(other.xreplace(point))
    if None not in exactly:
        return exactly[0] == exactly[1]
    left, right = value_at(one, point), value_at(other, point)
    if left is None or right is None:
        return None
    size = max(abs(left), abs(right))
    if not size:
        return True
    magnitude = int(sympy.log(size, 10).evalf())
    num_digits = _MOST_DIGITS + min(max(magnitude, 0), _MOST_WHOLE_DIGITS)
    difference = value_at(sympy.Add(one, -other, evaluate=False), point, num_digits)
    least = sympy.Float(10, _DIGITS) ** (min(magnitude, 0) + max(magnitude - _MOST_WHOLE_DIGITS, 0) + _SAME)
    is_small = difference is not None and bool(abs(difference) <= least)
    if is_small and magnitude > _MOST_WHOLE_DIGITS:
        raise Undecided
    return is_small


def rounds_to(exact: Any, decimal: sympy.Rational, places: int) -> bool:
    """Returns whether the decimal is the number rounded to so many places."""
    if not isinstance(exact, sympy.Expr) or exact.free_symbols:
        return False
    value = exact.evalf(_DIGITS)
    return bool(value.is_real) and bool(abs(value - decimal) <= sympy.Rational(1, 2 * 10**places))


def rational(expression: Any) -> Fraction | None:
    """Returns the exact value of sums, products, powers and factorials of numbers. Others and large ones have None."""
    try:
        return _rational(expression)
    except (ZeroDivisionError, RecursionError):
        return None


def _rational(expression: Any) -> Fraction | None:
    if isinstance(expression, sympy.Rational):
        return _bounded(Fraction(int(expression.p), int(expression.q))) if expression.q else None
    if not isinstance(expression, (sympy.Add, sympy.Mul, sympy.Pow, sympy.factorial)):
        return None
    values = []
    for argument in expression.args:
        value = _rational(argument)
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
