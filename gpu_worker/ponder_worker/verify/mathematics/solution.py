"""Compares relations by the values that they allow: `x > 5, x < 7` is `5 < x < 7`, and `x = 3 + 1 = 2` allows none."""

from __future__ import annotations

import re
from typing import Any

import sympy

from ponder_worker.answers.parts import Parts, Relation, split_parts, split_relation
from ponder_worker.verify.mathematics.formula import Unreadable, parse
from ponder_worker.verify.mathematics.formula_equality import are_equal

_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne) ")
_ALTERNATIVE = re.compile(r"\\text ?\{ ?,? ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:cup|vee)(?![A-Za-z])")
_INEQUALITIES = {"<", ">", "<=", ">=", "!="}
_ARITHMETIC = re.compile(r"(?:[0-9.+*/() ^{}-]|\\(?:frac|cdot|times|sqrt)(?![a-z]))+")
_LONGEST = 200
"""Characters of both texts together."""


def same_solutions(found: str, wanted: str) -> bool:
    """Returns whether one is several inequalities, and both allow the same values of the same variable."""
    if len(found) + len(wanted) > _LONGEST or not (_INEQUALITY.search(found) or _INEQUALITY.search(wanted)):
        return False
    if not (_is_several(found) or _is_several(wanted)):
        return False
    try:
        (one, names), (other, its) = _solutions(found), _solutions(wanted)
    except (Unreadable, NotImplementedError, ValueError, TypeError):
        return False
    return (names == its or not names or not its) and are_equal(one, other)


def contradicts_itself(chain: Relation) -> bool:
    """Returns whether two numbers in a chain of equations differ: `x = 3 + 1 = 2`."""
    if len(chain.signs) == 1 or set(chain.signs) != {"="}:
        return False
    numbers = [side for side in chain.sides if _ARITHMETIC.fullmatch(side)]
    try:
        values = [parse(side) for side in numbers] if len(numbers) > 1 else []
    except Unreadable:
        return False
    return not all(are_equal(value, values[0]) for value in values[1:])


def _is_several(text: str) -> bool:
    """Returns whether a text is several inequalities and nothing else."""
    pieces = [item for alternative in _ALTERNATIVE.split(text) for item in _items(alternative)]
    relations = [split_relation(piece) for piece in pieces]
    return len(pieces) > 1 and all(found is not None and set(found.signs) <= _INEQUALITIES for found in relations)


def _items(text: str) -> tuple[str, ...]:
    parts = split_parts(text.strip())
    return parts.items if parts is not None and parts.kind == "list" else (text.strip(),)


def _solutions(text: str) -> tuple[Any, frozenset[Any]]:
    """Returns the allowed values and the variables. Commas mean `and`, unless no value would be left."""
    allowed: list[Any] = []
    names: frozenset[Any] = frozenset()
    for alternative in _ALTERNATIVE.split(text):
        found = [_allowed(item) for item in _items(alternative)]
        names |= {name for _, symbols in found for name in symbols}
        sets = [values for values, _ in found]
        together = sympy.Intersection(*sets)
        if len(sets) > 1 and together in sets:  # nobody would write the others
            raise Unreadable(text)
        allowed.append(sympy.Union(*sets) if together is sympy.S.EmptySet else together)
    if len(names) > 1:
        raise Unreadable(text)
    return sympy.Union(*allowed), names


def _allowed(text: str) -> tuple[Any, frozenset[Any]]:
    parts = split_parts(text)
    if parts is not None and parts.kind in ("tuple", "interval") and len(parts.items) == 2:
        return _interval(parts), frozenset()
    relation = parse(text)
    if len(getattr(relation, "free_symbols", ())) != 1 or split_relation(text) is None:
        raise Unreadable(text)
    return relation.as_set(), frozenset(relation.free_symbols)


def _interval(parts: Parts) -> Any:
    start, end = map(parse, parts.items)
    return sympy.Interval(start, end, left_open=parts.opening == "(", right_open=parts.closing == ")")
