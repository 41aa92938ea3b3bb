"""Splits an answer into the items of a list, set, tuple or interval, or into the sides of an equation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ponder_worker.answers.wrapping import SET_TEXT

Kind = Literal["list", "set", "tuple", "interval"]

_TOKEN = re.compile(
    rf"\\begin\b|\\end\b|\\[{{}}]|\\\\|{SET_TEXT}|\\[A-Za-z]+|\\.|[()\[\]{{}},;=:<>]"
    r"|[^\\()\[\]{},;=:<>A-Za-z]+|[A-Za-z]+|.",
    re.DOTALL,
)
_OPENING = frozenset(("(", "[", "{", r"\{", r"\begin"))
_CLOSING = frozenset((")", "]", "}", r"\}", r"\end"))
_CONNECTING = re.compile(r"\\text ?\{ ?,? ?(?:and|or) ?\}|and|or|&")
_AND_SO_ON = r"\ldots"
_SIGNS = {"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~", r"\in": "in"}


@dataclass(frozen=True, slots=True)
class Parts:
    """Items and the brackets around them. The brackets of a bare list are empty."""

    kind: Kind
    items: tuple[str, ...]
    opening: str = ""
    closing: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """Sides and the signs between them, each one of `= < > <= >= != ~ in`."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


def split_parts(text: str) -> Parts | None:
    r"""Returns the items of a plain text that lists several or stands in brackets, else None.

    Items are separated by commas, semicolons, `and` or `or`. Beside semicolons, commas separate within an item.
    `(a, b)` is a tuple, which may also be an open interval; `[a, b)` is an interval, and `\{a, b\}` a set.
    """
    tokens = tokenize(text)
    if tokens is None:
        return None
    outer = _outer(tokens)
    inner = tokens[1:-1] if outer else tokens
    items = _split(inner, ";")
    items = items if len(items) > 1 else _split(inner, ",")
    if outer is None:
        return Parts("list", tuple(items)) if len(items) > 1 else None
    opening, closing = outer
    if opening == r"\{":
        return Parts("set", tuple(items), opening, closing) if closing == r"\}" else None
    if len(items) == 1:
        return None
    is_interval = len(items) == 2 and (opening, closing) != ("(", ")")
    return Parts("interval" if is_interval else "tuple", tuple(items), opening, closing)


def split_relation(text: str) -> Relation | None:
    """Returns the sides of an equation, an inequality or a chain of them, or None if there is no sign."""
    tokens = tokenize(text)
    if tokens is None:
        return None
    sides, signs = [""], []
    for token, depth in _levels(tokens):
        if depth == 0 and (sign := _SIGNS.get(token.strip())) is not None:
            signs.append(sign)
            sides.append("")
        else:
            sides[-1] += token
    sides = [side.strip() for side in sides]
    return Relation(tuple(sides), tuple(signs)) if signs and all(sides) else None


def tokenize(text: str) -> list[str] | None:
    """Returns the tokens of a text, or None if a bracket does not close. Any bracket may close any other: `(3,4]`."""
    tokens: list[str] = _TOKEN.findall(text)
    depth = 0
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth < 0:
            return None
    return tokens if depth == 0 else None


def _levels(tokens: list[str]) -> list[tuple[str, int]]:
    """Returns each token with its depth in brackets. A bracket itself counts as inside."""
    found, depth = [], 0
    for token in tokens:
        depth += token in _OPENING
        found.append((token, depth))
        depth -= token in _CLOSING
    return found


def _outer(tokens: list[str]) -> tuple[str, str] | None:
    """Returns the pair of brackets that encloses all tokens, or None."""
    if len(tokens) < 2 or tokens[0] not in ("(", "[", r"\{"):
        return None
    first = next(place for place, (token, depth) in enumerate(_levels(tokens)) if token in _CLOSING and depth == 1)
    return (tokens[0], tokens[-1]) if first == len(tokens) - 1 and tokens[-1] in (")", "]", r"\}") else None


def _split(tokens: list[str], separator: str) -> list[str]:
    """Splits at separators and connecting words outside all brackets.

    `1,000, 2,000` has two items: if any separator has a blank behind it, a comma between digits is not a separator.
    """
    if not tokens or (separator == ";" and separator not in tokens):
        return []
    levels = _levels(tokens)
    following = [*tokens[1:], ""]
    is_loose = any(
        token == separator and depth == 0 and after.startswith(" ")
        for (token, depth), after in zip(levels, following, strict=True)
    )
    items, before = [""], ""
    for (token, depth), after in zip(levels, following, strict=True):
        between = token == separator and not (is_loose and before[-1:].isdigit() and after[:1].isdigit())
        if depth == 0 and (between or (separator == "," and _CONNECTING.fullmatch(token))):
            items.append("")
        else:
            items[-1] += token
        before = token
    items = [item for item in (item.strip() for item in items) if item]
    if len(items) > 1 and items[-1].endswith(_AND_SO_ON) and items[-1] != _AND_SO_ON:
        items[-1:] = [items[-1].removesuffix(_AND_SO_ON).rstrip(), _AND_SO_ON]
    return items
