"""Mathematics as latex2sympy (extended by the authors of Math-Verify) reads it, and when two expressions are equal.

Math-Verify's own comparison rounds to six places, whatever the size of a number, and takes what is small for nothing:
1/2004! and 1/2006! are one to it. Here a difference is computed to hundreds of digits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from ponder_worker.verify.formula_exact import rational
from ponder_worker.verify.latex import prepare

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_DIGITS = 50
_MOST_DIGITS = 400
"""sympy computes with as many as a difference needs to have `_DIGITS` of its own, up to these behind the point."""
_MOST_WHOLE_DIGITS = 4_000
_SAME = -300
"""Decimal exponent. What is left of a difference of equal terms of size 1 is about 1e-400."""
_NUM_POINTS = 4
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}


class Undecided(Exception):
    """Two numbers have more digits than are computed."""


class Unreadable(Exception):
    """The text is no mathematics that can be read as a whole."""


@lru_cache(maxsize=256)
def parse(text: str) -> Any:
    """A plain text as sympy's. Raises Unreadable where any of it is left over."""
    prepared = prepare(text)
    if prepared is None:
        raise Unreadable(text)
    try:
        found = latex2sympy(prepared, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
        return _exact(found)
    except Exception:  # the parser raises whatever comes to its mind
        raise Unreadable(text) from None


def are_equal(one: Any, other: Any) -> bool:
    """Of two expressions, matrices, relations or sets; different kinds are not."""
    one, other = _matrix(one), _matrix(other)
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(map(are_equal, one, other))
    if _is_relation(one) and _is_relation(other):
        if one.free_symbols != other.free_symbols:
            return False
        return _same_relation(_relations(one), _relations(other)) or _same_set(_as_set(one), _as_set(other))
    if isinstance(one, sympy.Set) or isinstance(other, sympy.Set):
        return _same_set(_as_set(one), _as_set(other))
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        return _same_expression(one, other)
    return bool(one == other)


def _matrix(value: Any) -> Any:
    """Sums and products of matrices are worked out."""
    return value.doit() if isinstance(value, sympy.MatrixExpr) else value


def rounds_to(exact: Any, decimal: sympy.Rational, places: int) -> bool:
    """Whether the decimal is what the number is, rounded to so many places."""
    if not isinstance(exact, sympy.Expr) or exact.free_symbols:
        return False
    value = exact.evalf(_DIGITS)
    return bool(value.is_real) and bool(abs(value - decimal) <= sympy.Rational(1, 2 * 10**places))


def _exact(found: Any) -> Any:
    """Decimals as fractions, and i as the imaginary unit unless it counts something."""
    if not hasattr(found, "atoms"):
        return found
    new: dict[Any, Any] = {number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)}
    if not found.atoms(sympy.Sum, sympy.Product):
        new |= {symbol: sympy.I for symbol in found.atoms(sympy.Symbol) if symbol.name in ("i", "imath")}
    return found.xreplace(new) if new else found


def _same_expression(one: sympy.Expr, other: sympy.Expr) -> bool:
    if one == other:
        return True
    one, other = _concrete(one), _concrete(other)
    num_seen = 0
    for point in _points(sorted(one.free_symbols | other.free_symbols, key=str)):
        is_same = _agree(one, other, point)
        if is_same is False:
            return False
        num_seen += is_same is not None
    return num_seen > 0 or bool(sympy.simplify(one - other).is_zero)


def _concrete(expression: sympy.Expr) -> sympy.Expr:
    """With some function for each that only has a name, the same for the same name, so that it has a value."""

    def some(function: Any) -> Any:
        factors = random.Random(str(function.func))  # noqa: S311
        return sympy.sin(sum(argument * factors.randint(2, 99) / 7 for argument in function.args) + 1)

    return expression.replace(lambda part: isinstance(part, AppliedUndef), some)


def _points(symbols: list[sympy.Symbol]) -> Iterator[dict[Any, Any]]:
    """Numbers for the symbols, always the same: expressions that agree at all of them are one."""
    if not symbols:
        yield {}
        return
    source = random.Random(1)  # noqa: S311
    for number in range(_NUM_POINTS):
        signs = (1,) if number < 2 else (-1, 1)
        yield {symbol: sympy.Rational(source.choice(signs) * source.randint(100, 2900), 997) for symbol in symbols}


def _value(expression: sympy.Expr, point: dict[Any, Any], most_digits: int = _MOST_DIGITS) -> Any:
    """To fifty digits; None where it is no finite number."""
    try:
        value = expression.evalf(_DIGITS, subs=point, maxn=most_digits)
    except (ValueError, TypeError, ArithmeticError, NotImplementedError, RecursionError):
        return None
    parts = value.as_real_imag() if isinstance(value, sympy.Expr) else ()
    return value if parts and all(part.is_Number and part.is_finite for part in parts) else None


def _agree(one: sympy.Expr, other: sympy.Expr, point: dict[Any, Any]) -> bool | None:
    """Whether both have one value at a point; None where one of them has none.

    Raises Undecided where they differ by less than is computed of numbers of their size.
    """
    exactly = rational(one.xreplace(point)), rational(other.xreplace(point))
    if None not in exactly:
        return exactly[0] == exactly[1]
    left, right = _value(one, point), _value(other, point)
    if left is None or right is None:
        return None
    size = max(abs(left), abs(right))
    if not size:
        return True
    magnitude = int(sympy.log(size, 10).evalf())
    num_digits = _MOST_DIGITS + min(max(magnitude, 0), _MOST_WHOLE_DIGITS)
    difference = _value(sympy.Add(one, -other, evaluate=False), point, num_digits)
    least = sympy.Float(10, _DIGITS) ** (min(magnitude, 0) + max(magnitude - _MOST_WHOLE_DIGITS, 0) + _SAME)
    is_small = difference is not None and bool(abs(difference) <= least)
    if is_small and magnitude > _MOST_WHOLE_DIGITS:
        raise Undecided
    return is_small


def _is_relation(value: Any) -> bool:
    return isinstance(value, Relational) or (isinstance(value, sympy.And) and all(map(_is_relation, value.args)))


def _relations(value: Any) -> list[Relational]:
    """Of a chain, in its order."""
    if isinstance(value, Relational):
        return [value]
    parts: Iterable[Any] = getattr(value, "_unsorted_args", value.args)
    return [relation for part in parts for relation in _relations(part)]


def _same_relation(one: list[Relational], other: list[Relational]) -> bool:
    """Each up to a factor: `-x > -1` is `x < 1`, and `2x + 4y = 3` is `y = 3/4 - x/2`. A chain may run backwards."""
    if len(one) != len(other):
        return False
    return any(all(map(_is_multiple, one, order)) for order in (other, other[::-1]))


def _is_multiple(one: Relational, other: Relational) -> bool:
    left, right = one.lhs - one.rhs, other.lhs - other.rhs
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if not symbols or left.free_symbols != right.free_symbols:
        return bool(one == other)
    first, *points = _points(symbols)
    above, below = _value(left, first), _value(right, first)
    if not above or not below:
        return False
    # Both sides by the other's value at the first point, so that nothing is rounded.
    left, right = left * right.subs(first), right * left.subs(first)
    are_same = [_agree(left, right, point) for point in points]
    if False in are_same or True not in are_same:
        return False
    if one.rel_op in ("==", "!="):
        return bool(one.rel_op == other.rel_op)
    wanted = other.rel_op if (above / below).is_positive else _FLIPPED.get(other.rel_op)
    return bool(one.rel_op == wanted)


def _as_set(value: Any) -> Any:
    """The values that a relation of one variable allows."""
    if isinstance(value, sympy.Set) or not _is_relation(value) or len(value.free_symbols) != 1:
        return value
    if isinstance(value, sympy.Eq):
        return value
    try:
        return value.as_set()
    except Exception:
        return value


def _same_set(one: Any, other: Any) -> bool:
    if not isinstance(one, sympy.Set) or not isinstance(other, sympy.Set):
        return False
    if one == other:
        return True
    if isinstance(one, sympy.FiniteSet) and isinstance(other, sympy.FiniteSet):
        return len(one) == len(other) and all(any(are_equal(item, its) for its in other) for item in one)
    if isinstance(one, sympy.Interval) and isinstance(other, sympy.Interval):
        ends = (one.left_open, one.right_open) == (other.left_open, other.right_open)
        return ends and are_equal(one.start, other.start) and are_equal(one.end, other.end)
    return one.symmetric_difference(other).is_empty is True
