"""Compares parsed mathematics: expressions, matrices, relations and sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy
from sympy.core.relational import Relational

from ponder_worker.verify.mathematics.formula_value import agree, points, same_expression, value_at

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}


def are_equal(one: Any, other: Any) -> bool:
    """Returns whether two expressions, matrices, relations or sets are equal. Different kinds never are."""
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
        return same_expression(one, other)
    return bool(one == other)


def _matrix(value: Any) -> Any:
    """Computes sums and products of matrices."""
    return value.doit() if isinstance(value, sympy.MatrixExpr) else value


def _is_relation(value: Any) -> bool:
    return isinstance(value, Relational) or (isinstance(value, sympy.And) and all(map(_is_relation, value.args)))


def _relations(value: Any) -> list[Relational]:
    """Returns the relations of a chain in their order."""
    if isinstance(value, Relational):
        return [value]
    parts: Iterable[Any] = getattr(value, "_unsorted_args", value.args)
    return [relation for part in parts for relation in _relations(part)]


def _same_relation(one: list[Relational], other: list[Relational]) -> bool:
    """Compares chains, each relation up to a factor: `-x > -1` is `x < 1`. A chain may run backwards."""
    if len(one) != len(other):
        return False
    return any(all(map(_is_multiple, one, order)) for order in (other, other[::-1]))


def _is_multiple(one: Relational, other: Relational) -> bool:
    left, right = one.lhs - one.rhs, other.lhs - other.rhs
    if not left.free_symbols or left.free_symbols != right.free_symbols:
        return bool(one == other)
    first, *others = points(left, right)
    above, below = value_at(left, first), value_at(right, first)
    if not above or not below:
        return False
    # Multiplies each side by the other's value at the first point, so that nothing is rounded.
    left, right = left * right.subs(first), right * left.subs(first)
    are_same = [agree(left, right, point) for point in others]
    if False in are_same or True not in are_same:
        return False
    if one.rel_op in ("==", "!="):
        return bool(one.rel_op == other.rel_op)
    wanted = other.rel_op if (above / below).is_positive else _FLIPPED.get(other.rel_op)
    return bool(one.rel_op == wanted)


def _as_set(value: Any) -> Any:
    """Returns the set of values that an inequality of one variable allows, or the value itself."""
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
