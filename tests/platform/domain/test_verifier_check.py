"""Invalid JSON schemas are refused at submission, with the reason."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from growth import MOST_GROWTH, growth
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from referencing.jsonschema import EMPTY_REGISTRY

from ponder.domain.verifier_check import check_schema
from ponder.errors import InvalidInput

_DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "nonsense"}, "'nonsense' is not valid"),
        ({"pattern": "("}, r"'\(' is not a 'regex'"),
        ({"properties": {"a": {"patternProperties": {"[": {}}}}}, r"'\[' is not a 'regex'"),
        ({"$schema": _DRAFT_7, "items": [{"type": "integr"}]}, "is not valid"),
        ({"$schema": "urn:unknown", "type": "integr"}, "'integr' is not valid"),
        ({"$ref": "#/$defs/a"}, "refers to '#/\\$defs/a', where it has no schema"),
        ({"$ref": "#a"}, "refers to '#a'"),
        ({"properties": {"a": {"items": {"$ref": "#/nowhere"}}}}, "refers to '#/nowhere'"),
        ({"$ref": "#/title", "title": "no schema"}, "refers to '#/title'"),
        ({"$ref": "#/allOf/x", "allOf": [True]}, "refers to '#/allOf/x'"),
        ({"$ref": "#/parts/a", "parts": {"a": {"type": "integr"}}}, "'integr' is not valid"),
        ({"$ref": "#/parts/a", "parts": {"a": {"items": {"$ref": "#/b"}}}}, "refers to '#/b'"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "refers to 'http://127.0.0.1:9/schema'"),
        ({"$ref": "file:///etc/passwd"}, "refers to 'file:///etc/passwd'"),
        ({"$ref": "http://[::1"}, "refers to"),
        ({"$schema": []}, "when it is read"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "$ref": 5}, "when it is read"),
    ],
)
def test_a_wrong_schema_is_refused_with_its_reason(schema: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
        {"$ref": "#/definitions/a", "definitions": {"a": {"items": {"$ref": "#/definitions/a"}}}},
        {"$ref": "#a", "$defs": {"one": {"$anchor": "a"}}},
        {"$id": "https://example.org/a", "$ref": "b", "$defs": {"b": {"$id": "b", "type": "string"}}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": "urn:unknown", "items": {"type": "integer"}},
        {"properties": {"$ref": {"type": "string"}}},
        {"enum": [{"$ref": "#/nowhere"}]},
    ],
)
def test_a_schema_whose_references_lead_into_it_is_accepted(schema: dict[str, Any]) -> None:
    check_schema(schema)
    check_schema({"properties": {"inner": {"$id": "https://example.org/inner", **schema}}})


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"$ref": "#"}, "#"),
        ({"$recursiveRef": "#"}, "#"),
        ({"$dynamicAnchor": "a", "$dynamicRef": "#a"}, "#"),
        ({"allOf": [{"type": "object"}, {"$ref": "#"}]}, "#"),
        ({"properties": {"a": {"anyOf": [{"not": {"$ref": "#/properties/a"}}]}}}, "#/properties/a"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"if": {"$ref": "#/$defs/a"}}}}, "#/$defs/a"),
        ({"$schema": _DRAFT_7, "dependencies": {"a": {"$ref": "#"}}}, "#"),
        ({"items": {"$ref": "#/parts/a~1b"}, "parts": {"a/b": {"oneOf": [{"$ref": "#/parts/a~1b"}]}}}, "#/parts/a~1b"),
    ],
)
def test_a_schema_that_leads_back_to_itself_is_refused_with_its_place(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidInput, match=f"the schema at {re.escape(place)} leads back to itself"):
        check_schema(schema)


def test_a_recursive_schema_is_accepted_if_the_recursion_goes_into_the_value() -> None:
    check_schema(
        {"properties": {"inner": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "all": {"items": {"$ref": "#"}}}}
    )


def test_a_schema_is_read_by_the_draft_that_it_names() -> None:
    items = {"items": [{"type": "integer"}]}
    check_schema({"$schema": _DRAFT_7, **items})
    with pytest.raises(InvalidInput, match="not of type 'object'"):
        check_schema(items)


def _check_ring(num: int) -> None:
    """Checks schemas that refer to each other in a ring, by name and by place."""
    parts = {
        f"d{i}": {
            "$anchor": f"a{i}",
            "properties": {"x": {"$ref": f"#a{(i + 1) % num}"}, "y": {"$ref": f"#/$defs/d{(i + 1) % num}"}},
        }
        for i in range(num)
    }
    check_schema({"$defs": parts})


def test_twice_the_schema_costs_about_twice_the_time() -> None:
    assert growth(_check_ring, 400) <= MOST_GROWTH


_KEYWORDS = st.sampled_from(
    [
        "$schema",
        "$ref",
        "$dynamicRef",
        "$recursiveRef",
        "$id",
        "id",
        "$anchor",
        "$defs",
        "definitions",
        "properties",
        "items",
        "allOf",
        "not",
        "pattern",
        "patternProperties",
        "type",
        "enum",
        "dependencies",
        "x",
    ]
)
_WORDS = st.sampled_from(
    [
        "#",
        "#/$defs/x",
        "#/x",
        "#x",
        "x",
        "",
        "urn:x",
        "//",
        "http://[",
        "%",
        "(",
        "string",
        _DRAFT_7,
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-03/schema#",
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500)
@given(schema=st.dictionaries(_KEYWORDS, _VALUES, max_size=5))
def test_any_schema_is_accepted_or_refused(schema: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidInput):
        check_schema(schema)


@settings(max_examples=500)
@given(schema=st.dictionaries(_KEYWORDS, _VALUES, max_size=5), value=_VALUES)
def test_an_accepted_schema_can_be_checked_against_any_value(schema: dict[str, Any], value: Any) -> None:
    with contextlib.suppress(InvalidInput):
        check_schema(schema)
        validator_for(schema, default=Draft202012Validator)(schema, registry=EMPTY_REGISTRY).is_valid(value)
