"""Whether a user's JSON schema is one. What is wrong with it is told at submission, not once for each answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ponder.errors import InvalidInput

_SHOWN = 200
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def check_schema(schema: Any) -> None:
    """Raises InvalidInput unless it is a JSON schema, of draft 2020-12 where `$schema` names no other, and all
    its references lead to schemas that it holds itself.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        for outlying in _referenced(schema):
            kind.check_schema(outlying)
    except SchemaError as error:
        raise _refusal(error.message) from None
    except RecursionError:
        raise _refusal("nested too deeply") from None
    except InvalidInput:
        raise
    except Exception as error:  # what older drafts leave untyped, a number as `$ref` say, the libraries do not look at
        raise _refusal(f"{type(error).__name__} when it is read") from None


def _referenced(schema: Any) -> Iterator[Any]:
    """Schemas that only references lead to, such as those in a keyword of the user's own. Raises InvalidInput
    for a reference that leads to none, or out of the document: nothing is fetched.
    """
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    address = root.id() or ""
    waiting = [(root, REGISTRY.with_resource(address, root).crawl().resolver(address))]
    outlying: list[Any] = []
    seen: set[int] = set()
    while waiting or outlying:
        if not waiting:  # all that keywords of the draft lead to is known
            found = outlying.pop()
            if id(found.contents) in seen:
                continue
            yield found.contents
            waiting.append((Resource.from_contents(found.contents, default_specification=DRAFT202012), found.resolver))
        resource, resolver = waiting.pop()
        seen.add(id(resource.contents))
        if isinstance(resource.contents, dict):
            resolver = resolver.in_subresource(resource)
            outlying += [_resolved(resolver, ref) for name in _REFERENCES if (ref := resource.contents.get(name))]
            waiting += [(each, resolver) for each in resource.subresources()]


def _resolved(resolver: Any, reference: str) -> Any:
    from referencing.exceptions import Unresolvable

    try:
        found = resolver.lookup(reference)
    except (Unresolvable, ValueError):  # ValueError: a pointer or an address that is none
        found = None
    if found is None or not isinstance(found.contents, dict | bool):
        raise _refusal(f"it refers to {reference[: _SHOWN // 2]!r}, and holds no schema there")
    return found


def _refusal(reason: str) -> InvalidInput:
    return InvalidInput(f"not a JSON schema: {reason[:_SHOWN]}", code="invalid_schema")
