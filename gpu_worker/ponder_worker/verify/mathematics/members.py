"""Reads the members of a list and their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ponder_worker.answers.equality import assigned, is_name, is_words
from ponder_worker.answers.numeral import read_numeral
from ponder_worker.answers.parts import Parts, split_parts, split_relation

_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}(?:,[0-9]{3})*,0[0-9]{2}(?:,[0-9]{3})*")
"""A number with separators. It is not a list, because no item of a list begins with 0."""
_SIGNED = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")


def has_signs(text: str) -> bool:
    r"""Returns whether a text has `\pm` or `\mp`, and so means two values."""
    return _SIGNED.search(text) is not None


def members(items: Sequence[str]) -> list[str]:
    r"""Returns one text for each member: two for `a \pm b`, and `x = 1`, `x = 2` for `x = 1, 2`."""
    made: list[str] = []
    name = ""
    for item in items:
        relation = split_relation(item)
        if relation is not None:
            name = relation.sides[0] if relation.signs == ("=",) and is_name(relation.sides[0]) else ""
        named = f"{name} = {item}" if relation is None and name and not is_words(item) else item
        made += _both_signs(f"({named})" if relation is None and _is_row(item) else named)
    return made


def _is_row(item: str) -> bool:
    """Returns whether an item is itself a list, as in `1,2; 3,4`, whose order counts."""
    parts = parts_of(item) if "," in item and read_numeral(item) is None else None
    return parts is not None and parts.kind == "list"


def names(items: Sequence[str]) -> list[str]:
    """Returns the names that the items give, in their order, each once."""
    pairs = [assigned(relation) for item in items if "=" in item and (relation := split_relation(item))]
    return list(dict.fromkeys(pair[0] for pair in pairs if pair and pair[0]))


def are_named(items: Sequence[str]) -> bool:
    """Returns whether the items have different names, so that their order means nothing."""
    return len(names(items)) > 1


def can_be_numbered(items: Sequence[str]) -> bool:
    """Returns whether a tuple may omit the names. `b = 1, a = 2` does not say which comes first in a pair."""
    found = names(items)
    return found == sorted(found)


def parts_of(text: str) -> Parts | None:
    """Returns the parts of a text. `k = 1,234` and `10,080` have none."""
    return None if is_assigned_number(text) or _GROUPED.fullmatch(text) else split_parts(text)


def by_name(text: str) -> Parts | None:
    """Returns the list `a = 1, b = 2` for `(a, b) = (1, 2)`, and None for anything else."""
    relation = split_relation(text)
    if relation is None or relation.signs != ("=",):
        return None
    left, right = map(split_parts, relation.sides)
    if left is None or right is None or {left.kind, right.kind} != {"tuple"} or len(left.items) != len(right.items):
        return None
    pairs = zip(left.items, right.items, strict=True)
    return Parts("list", tuple(f"{name} = {value}" for name, value in pairs)) if all(map(is_name, left.items)) else None


def union(text: str) -> list[str] | None:
    """Returns the intervals and sets of a union, or None."""
    pieces = [piece.strip() for piece in text.split(r"\cup")]
    return pieces if len(pieces) > 1 and all(split_parts(piece) for piece in pieces) else None


def is_assigned_number(text: str) -> bool:
    """Returns whether a text assigns one number, as `k = 1,234` does, which is no list."""
    relation = split_relation(text) if "=" in text else None
    pair = assigned(relation) if relation is not None else None
    return pair is not None and read_numeral(pair[1]) is not None


def _both_signs(item: str) -> list[str]:
    if not has_signs(item):
        return [item]
    upper = _SIGNED.sub(lambda sign: "+" if sign[1] == "pm" else "-", item)
    lower = _SIGNED.sub(lambda sign: "-" if sign[1] == "pm" else "+", item)
    return [upper.lstrip("+"), lower.lstrip("+")]
