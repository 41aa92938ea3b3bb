"""Checks that a user's JSON schema is one. Errors are reported at submission, not once for each answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

_SHOWN = 200
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "extends")
_IN_PLACE_BY_NAME = ("dependentSchemas", "dependencies")
"""Keywords whose schemas are held against the same value, not against a part of it."""


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
        raise _refusal(f"it refers to {reference[: _SHOWN // 2]!r}, and holds no schema there")
    return found


def _refusal(reason: str) -> InvalidInput:
    return InvalidInput(f"not a JSON schema: {reason[:_SHOWN]}", code="invalid_schema")
