"""What a list has in it, and what its items are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ponder_worker.answers.equality import assigned, is_name, is_words
from ponder_worker.answers.numeral import read_numeral
from ponder_worker.answers.parts import Parts, split_parts, split_relation

_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}(?:,[0-9]{3})*,0[0-9]{2}(?:,[0-9]{3})*")
"""A number with separators that can be no list, because no item of one begins with 0."""
_SIGNED = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")


def has_signs(text: str) -> bool:
    r"""Whether it is several because of `\pm`."""
    return _SIGNED.search(text) is not None


def members(items: Sequence[str]) -> list[str]:
    r"""One text for each that is meant: `a \pm b` is two, and the name in `x = 1, 2` is that of both."""
    made: list[str] = []
    name = ""
    for item in items:
        relation = split_relation(item)
        if relation is not None:
            name = relation.sides[0] if relation.signs == ("=",) and is_name(relation.sides[0]) else ""
        named = f"{name} = {item}" if relation is None and name and not is_words(item) else item
        made += _both_signs(named)
    return made


def names(items: Sequence[str]) -> list[str]:
    """By which the items say what they are, in their order, each once."""
    pairs = [assigned(relation) for item in items if "=" in item and (relation := split_relation(item))]
    return list(dict.fromkeys(pair[0] for pair in pairs if pair and pair[0]))


def are_named(items: Sequence[str]) -> bool:
    """Whether the items have different names, so that their order means nothing by itself."""
    return len(names(items)) > 1


def can_be_numbered(items: Sequence[str]) -> bool:
    """Whether a tuple may leave the names out: `b = 1, a = 2` does not say which of them comes first in a pair."""
    found = names(items)
    return found == sorted(found)


def parts_of(text: str) -> Parts | None:
    """Its parts; `k = 1,234` has none, nor has `10,080`."""
    return None if is_assigned_number(text) or _GROUPED.fullmatch(text) else split_parts(text)


def by_name(text: str) -> Parts | None:
    """`(a, b) = (1, 2)` as `a = 1, b = 2`; None for anything else."""
    relation = split_relation(text)
    if relation is None or relation.signs != ("=",):
        return None
    left, right = map(split_parts, relation.sides)
    if left is None or right is None or {left.kind, right.kind} != {"tuple"} or len(left.items) != len(right.items):
        return None
    pairs = zip(left.items, right.items, strict=True)
    return Parts("list", tuple(f"{name} = {value}" for name, value in pairs)) if all(map(is_name, left.items)) else None


def union(text: str) -> list[str] | None:
    """The intervals and sets that are joined to one."""
    pieces = [piece.strip() for piece in text.split(r"\cup")]
    return pieces if len(pieces) > 1 and all(split_parts(piece) for piece in pieces) else None


def is_assigned_number(text: str) -> bool:
    """`k = 1,234` is no list."""
    relation = split_relation(text) if "=" in text else None
    pair = assigned(relation) if relation is not None else None
    return pair is not None and read_numeral(pair[1]) is not None


def _both_signs(item: str) -> list[str]:
    if not has_signs(item):
        return [item]
    upper = _SIGNED.sub(lambda sign: "+" if sign[1] == "pm" else "-", item)
    lower = _SIGNED.sub(lambda sign: "-" if sign[1] == "pm" else "+", item)
    return [upper.lstrip("+"), lower.lstrip("+")]
