"""JSON schemas as they are enforced: their parts, and what no answer could be held to as strictly as it is verified."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from ponder.domain.storable import JsonObject

Place = tuple[str | int, ...]
"""The keys and indices that lead to a part of a schema."""

_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_SINGLE = ("items", "additionalProperties", "additionalItems")
_DRAFTS = re.compile(r"https?://json-schema\.org/(?:draft/20(?:20-12|19-09)|draft-0[67])/schema#?")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_MOST = 2.0**53
"""Numbers beyond it are not exact."""
_LARGEST_DIVISOR = 10_000
"""A grammar for the multiples of a number has a state for each remainder."""
_UNALIKE = re.compile(
    r"\\[WDSBbpPAZz<>]|\(\?(?!:)|[*+?}]\+|\[\^[^\]]*\\[wds]|\[[^\]]*\[|&&|--|~~"
)  # fmt: skip
"""Parts of patterns that Rust reads in another way than Python, which the verifier uses."""


def parts(schema: Any, place: Place = ()) -> Iterator[tuple[Place, JsonObject]]:
    """Yields a schema and the schemas in it that can be enforced, outer ones first, each with its place."""
    if not isinstance(schema, dict):
        return
    yield place, schema
    for name in _BY_NAME:
        inner = schema.get(name)
        for key, part in inner.items() if isinstance(inner, dict) else ():
            yield from parts(part, (*place, name, key))
    for name in _LISTS:
        inner = schema.get(name)
        for index, part in enumerate(inner) if isinstance(inner, list) else ():
            yield from parts(part, (*place, name, index))
    for name in _SINGLE:
        yield from parts(schema.get(name), (*place, name))


def narrowed(schema: JsonObject) -> JsonObject:
    """Returns the schema with exclusive bounds of numbers as inclusive ones, a little further in.

    A number of many digits may be inside an exclusive bound, and be the bound itself once it is read as a float.
    """
    schema = {**schema}
    for name in (*_BY_NAME, *_LISTS, *_SINGLE):
        inner = schema.get(name)
        if isinstance(inner, list):
            schema[name] = [_narrowed(part) for part in inner]
        elif isinstance(inner, dict):
            schema[name] = (
                {key: _narrowed(part) for key, part in inner.items()} if name in _BY_NAME else narrowed(inner)
            )
    if schema.get("type") != "integer":
        for exclusive, inclusive, sign in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            bound = schema.pop(exclusive, None)
            if isinstance(bound, int | float):
                near = bound + sign * max(1e-9, 2 * math.ulp(bound))
                schema[inclusive] = sign * max(sign * near, sign * schema.get(inclusive, near))
    return schema


def why_not_enforced(part: JsonObject, places: set[Place]) -> tuple[str, str] | None:
    """Returns the keyword of a schema that llguidance would not enforce as the verifier judges it, and why.

    places: of the parts that references may lead to.
    """
    if "$schema" in part and _DRAFTS.fullmatch(str(part["$schema"])) is None:
        return "$schema", "only drafts 6, 7, 2019-09 and 2020-12 can be enforced"
    for name in ("$id", "$anchor"):
        if name in part:
            return name, "it cannot be enforced"
    if "$ref" in part and place_of(str(part["$ref"])) not in places:
        return "$ref", "only references to other parts of the schema can be enforced, such as #/$defs/name"
    if part.get("minProperties", 0) > len(set(part.get("required", ()))):
        return "minProperties", "an answer may name one property twice, so only what is required can be counted"
    return _inexact(part) or _unalike(part)


def _inexact(part: JsonObject) -> tuple[str, str] | None:
    for name in _NUMBERS:
        value = part.get(name)
        if isinstance(value, int | float) and abs(value) > _MOST:
            return name, "beyond 2^53, numbers are not exact and cannot be enforced"
    if part.get("multipleOf", 1) > _LARGEST_DIVISOR:
        return "multipleOf", f"only multiples of at most {_LARGEST_DIVISOR:,} can be enforced"
    if not float(part.get("multipleOf", 1)).is_integer():
        return "multipleOf", "only whole numbers can be enforced, because fractions are not exact"
    return None


def _unalike(part: JsonObject) -> tuple[str, str] | None:
    patterns = [("patternProperties", pattern) for pattern in part.get("patternProperties", ())]
    for name, pattern in [("pattern", part.get("pattern", "")), *patterns]:
        if found := _UNALIKE.search(str(pattern)):
            return name, f"{found[0]!r} cannot be enforced, because the verifier reads it in another way"
    return None


def _narrowed(part: Any) -> Any:
    return narrowed(part) if isinstance(part, dict) else part


def place_of(reference: str) -> Place | None:
    """Returns the place that a reference leads to; None if it is not in the schema itself."""
    if reference == "#":
        return ()
    if not reference.startswith("#/"):
        return None
    keys = [key.replace("~1", "/").replace("~0", "~") for key in reference[2:].split("/")]
    steps = zip(["", *keys], keys, strict=False)
    return tuple(int(key) if key.isdigit() and before in _LISTS else key for before, key in steps)
