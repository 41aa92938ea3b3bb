"""Checks a user's pattern or JSON schema. For some this takes long, so call it where it can be stopped.

Errors are reported at submission, not once for each answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic_core import from_json, to_json

from ponder.domain.storable import JsonObject
from ponder.domain.verifier import Verifier
from ponder.errors import InvalidInput

_SHOWN = 200
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "extends")
_IN_PLACE_BY_NAME = ("dependentSchemas", "dependencies")
"""Keywords whose schemas are held against the same value, not against a part of it."""


@dataclass(frozen=True, slots=True)
class VerifierLimits:
    """Limits on patterns and schemas. Checking one within the limits takes milliseconds, with few exceptions."""

    pattern_length: int = 2_000
    """Characters of a pattern, and of each pattern in a schema."""
    schema_bytes: int = 65_536
    schema_depth: int = 64
    subschemas: int = 1_000
    """Objects and booleans in a schema, each of which may be a schema."""


def needs_check(verifier: Verifier | None) -> bool:
    """Returns whether `check_verifier` would have anything to do."""
    return verifier is not None and bool(verifier.patterns or verifier.schemas)


def check_verifier(verifier: Verifier | None, limits: VerifierLimits, param: str) -> None:
    """Raises InvalidInput for a pattern or schema that is invalid or beyond the limits. `param` names the verifier."""
    if verifier is None:
        return
    for field_name, pattern in verifier.patterns.items():
        _check_pattern(pattern, limits, f"{param}.{field_name}")
    for field_name, schema in verifier.schemas.items():
        check_limited_schema(schema, limits, f"{param}.{field_name}")


def check_limited_schema(schema: JsonObject, limits: VerifierLimits, param: str) -> None:
    """Raises InvalidInput unless this is a JSON schema within the limits. Cached, because many lines share a schema."""
    written = to_json(schema)
    try:
        if len(written) > limits.schema_bytes:
            raise _beyond("schema has", len(written), "bytes", limits.schema_bytes, "MAX_SCHEMA_BYTES")
        _check_written(written, limits)
    except InvalidInput as error:
        raise InvalidInput(f"{param}: {error.message}", param=param, code=error.code) from None


def _check_pattern(pattern: str, limits: VerifierLimits, param: str) -> None:
    if len(pattern) > limits.pattern_length:
        reason = _beyond("pattern has", len(pattern), "characters", limits.pattern_length, "MAX_PATTERN_LENGTH").message
    else:
        try:
            re.compile(pattern)
            return
        except (re.error, RecursionError, OverflowError) as error:
            reason = f"not a Python regular expression: {error if str(error) else 'nested too deeply'}"
    raise InvalidInput(f"{param}: {reason}", param=param, code="invalid_pattern")


@lru_cache(maxsize=64)
def _check_written(written: bytes, limits: VerifierLimits) -> None:
    schema = from_json(written)
    num_subschemas = 0
    for depth, part in _parts(schema):
        if depth > limits.schema_depth:
            raise _beyond("schema is nested", depth, "levels deep", limits.schema_depth, "MAX_SCHEMA_DEPTH")
        num_subschemas += isinstance(part, dict | bool)
        if num_subschemas > limits.subschemas:
            raise _beyond("schema has", num_subschemas, "parts or more", limits.subschemas, "MAX_SUBSCHEMAS")
        for pattern in _patterns(part):
            if len(pattern) > limits.pattern_length:
                most = limits.pattern_length
                raise _beyond("schema has a pattern of", len(pattern), "characters", most, "MAX_PATTERN_LENGTH")
    check_schema(schema)


def _parts(schema: Any) -> Iterator[tuple[int, Any]]:
    """Yields all values in a schema with their depths, those near the root first."""
    level, depth = [schema], 1
    while level:
        yield from ((depth, part) for part in level)
        level = [
            inner
            for part in level
            for inner in (part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
        ]
        depth += 1


def _patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        if isinstance(part.get("patternProperties"), dict):
            yield from part["patternProperties"]


def _beyond(what: str, found: int, unit: str, most: int, setting: str) -> InvalidInput:
    return InvalidInput(
        f"the {what} {found} {unit}, and at most {most} are allowed (PONDER_{setting})", code="invalid_schema"
    )


def check_schema(schema: Any) -> None:
    """Raises InvalidInput unless this is a JSON schema (of draft 2020-12 unless `$schema` names another), all its
    references lead to schemas inside it, and none leads back to itself with the same value.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        reached = _reached(schema)
        for outlying in reached.outlying:
            kind.check_schema(outlying)
        _refuse_loops(schema, reached.in_place)
    except SchemaError as error:
        raise _refusal(error.message) from None
    except RecursionError:
        raise _refusal("nested too deeply") from None
    except InvalidInput:
        raise
    except Exception as error:  # the libraries do not check what older drafts leave untyped, such as a number as `$ref`
        raise _refusal(f"{type(error).__name__} when it is read") from None


@dataclass(frozen=True, slots=True)
class _Reached:
    """All that a schema leads to.

    `outlying`: schemas that only references lead to, such as those in a keyword of the user's own. `in_place`: for each
    schema, by `id`, those that are held against the same value.
    """

    outlying: list[Any] = field(default_factory=list)
    in_place: dict[int, list[int]] = field(default_factory=dict)


def _reached(schema: Any) -> _Reached:
    """Raises InvalidInput for a reference that leads nowhere, or out of the document: nothing is fetched."""
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    reached = _Reached()
    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    address = root.id() or ""
    waiting = [(root, REGISTRY.with_resource(address, root).crawl().resolver(address))]
    found: list[Any] = []
    seen: set[int] = set()
    while waiting or found:
        if not waiting:  # everything that keywords of the draft lead to has been seen
            target = found.pop()
            if id(target.contents) in seen:
                continue
            reached.outlying.append(target.contents)
            resource = Resource.from_contents(target.contents, default_specification=DRAFT202012)
            waiting.append((resource, target.resolver))
        resource, resolver = waiting.pop()
        seen.add(id(resource.contents))
        if isinstance(resource.contents, dict):
            resolver = resolver.in_subresource(resource)
            targets = [_resolved(resolver, ref) for name in _REFERENCES if (ref := resource.contents.get(name))]
            found += targets
            same_value = [*(target.contents for target in targets), *_applied_in_place(resource.contents)]
            reached.in_place[id(resource.contents)] = [id(each) for each in same_value if isinstance(each, dict)]
            waiting += [(each, resolver) for each in resource.subresources()]
    return reached


def _applied_in_place(schema: JsonObject) -> Iterator[Any]:
    for name in _IN_PLACE:
        inner = schema.get(name)
        yield from inner if isinstance(inner, list) else [inner]
    for name in _IN_PLACE_BY_NAME:
        inner = schema.get(name)
        yield from inner.values() if isinstance(inner, dict) else ()


def _refuse_loops(schema: Any, in_place: dict[int, list[int]]) -> None:
    """Raises InvalidInput for a schema that could never be held against a value to the end."""
    try:
        TopologicalSorter(in_place).prepare()
    except CycleError as error:
        loop = set(error.args[1])
        place = next((place for place, part in _places(schema) if id(part) in loop), "#")
        raise _refusal(
            f"the schema at {place[:_SHOWN]} leads back to itself with the same value, so that checking it never ends"
        ) from None


def _places(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yields all parts of a document with their JSON pointers, outer ones first."""
    waiting = [("#", schema)]
    for place, part in waiting:
        yield place, part
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        waiting += [(f"{place}/{str(key).replace('~', '~0').replace('/', '~1')}", inner) for key, inner in items]


def _resolved(resolver: Any, reference: str) -> Any:
    from referencing.exceptions import Unresolvable

    try:
        found = resolver.lookup(reference)
    except (Unresolvable, ValueError):  # ValueError: an invalid pointer or address
        found = None
    if found is None or not isinstance(found.contents, dict | bool):
        raise _refusal(f"it refers to {reference[: _SHOWN // 2]!r}, where it has no schema")
    return found


def _refusal(reason: str) -> InvalidInput:
    return InvalidInput(f"not a JSON schema: {reason[:_SHOWN]}", code="invalid_schema")
