"""Structures are checked before a job is made of them: what cannot be enforced is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ponder.domain import structure_check as module
from ponder.domain.structure import Structure
from ponder.domain.structure_check import check_structure
from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import InvalidInput

STRING = {"type": "string"}
DEFINED = ".$defs.a.items.not"


def refusal(structure: dict[str, Any], **limits: int) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check_structure(structure, VerifierLimits(**limits), "schema")
    assert caught.value.code == "invalid_structure"
    assert caught.value.message.startswith(f"{caught.value.param}: ")
    return caught.value


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"not": STRING, "pattern": {"type": "number", "exclusiveMinimum": 0}}},
        {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"},
        {"properties": {"a/b": STRING}, "additionalProperties": {"$ref": "#/properties/a~1b"}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [STRING], "definitions": {"a": STRING}},
        {"anyOf": [STRING, {"enum": [1, None, {"multipleOf": 0.5}]}], "description": "x", "x-mine": {"not": 1}},
        {"minProperties": 1, "required": ["a"]},
        {"x-guidance": {"lenient": True}},
    ],
)
def test_what_can_be_enforced_is_accepted(schema: dict[str, Any]) -> None:
    check_structure({"json_schema": schema}, VerifierLimits(), "schema")


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"uniqueItems": True}, ".uniqueItems"),
        ({"type": "integer", "multipleOf": 9_999_991}, ".multipleOf"),
        ({"properties": {"a": {"items": {"not": {}}}}}, ".properties.a.items.not"),
        ({"properties": {"not": {"contains": {}}}}, ".properties.not.contains"),
        ({"properties": {"é <%>": {"anyOf": [STRING, {"if": {}}]}}}, ".properties.é <%>.anyOf[1].if"),
        ({"$defs": {"a": {"propertyNames": {}}}, "items": {"$ref": "#/$defs/a"}}, ".$defs.a.propertyNames"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, ""),
        ({"items": {"type": "string", "format": "colour"}}, ".items"),
        ({"allOf": [STRING, {"type": "string", "minLength": 2, "maxLength": 1}]}, ".allOf[1]"),
        ({"items": {"type": "string", "pattern": "(?=a)"}}, ".items.pattern"),
        ({"items": {"type": "string", "pattern": r"\W"}}, ".items.pattern"),
        ({"items": {"type": "string", "pattern": "[[:alpha:]]"}}, ".items.pattern"),
        ({"patternProperties": {r"[^\d]": STRING}}, ".patternProperties"),
        ({"items": {"type": "number", "multipleOf": 0.1}}, ".items.multipleOf"),
        ({"items": {"type": "integer", "maximum": 10**20}}, ".items.maximum"),
        ({"minProperties": 2, "required": ["a"]}, ".minProperties"),
        ({"$ref": "#/x-mine/a", "x-mine": {"a": STRING}}, ".$ref"),
        ({"$id": "http://a/b"}, ".$id"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "object"}, ".$schema"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_place_and_the_remedy(schema: dict[str, Any], place: str) -> None:
    found = refusal({"json_schema": schema})
    assert found.param == f"schema{place}"
    assert "strict: false" in found.message
    assert len(found.message) < 400


def test_the_place_in_a_long_schema_is_found_by_reading_it_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"type": "object", "properties": {"a": STRING, "b": {"items": STRING}, "c": {"$ref": "#/$defs/short"}}}
    wrong = {"properties": {"deep": {"anyOf": [STRING, {"not": {}}]}}}
    schema = {"properties": {f"p{number}": part for number in range(100)} | {"q": wrong}, "$defs": {"short": STRING}}
    checked: list[int] = []
    why_invalid = module._why_invalid

    def counted(structure: dict[str, Any]) -> str | None:
        checked.append(len(json.dumps(structure)))
        return why_invalid(structure)

    monkeypatch.setattr(module, "_why_invalid", counted)
    assert refusal({"json_schema": schema}).param == "schema.properties.q.properties.deep.anyOf[1].not"
    assert sum(checked) < 6 * len(json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (
            {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"not": {}}}, "$ref": "#/$defs/a"},
            ".$defs.a.items.not",
        ),
        ({"properties": {"a": {"items": [{"contains": {}}, {"$ref": "#"}]}}}, ".properties.a.items[0].contains"),
        ({"anyOf": [{"enum": [{"$ref": "#/x"}]}, {"contains": {}}]}, ".anyOf[1].contains"),
    ],
)
def test_a_part_is_checked_with_what_it_refers_to(schema: dict[str, Any], place: str) -> None:
    assert refusal({"json_schema": schema}).param == f"schema{place}"


@pytest.mark.parametrize("structure", [{"regex": "("}, {"regex": r"(?=a)b"}, {"grammar": "start: x"}, {"grammar": "x"}])
def test_malformed_patterns_and_grammars_are_refused(structure: dict[str, Any]) -> None:
    assert refusal(structure).param == "schema"


def test_a_grammar_has_no_special_tokens_because_models_differ_in_them() -> None:
    for token in ("<|im_end|>", "<[99999]>"):
        assert "special tokens" in refusal({"grammar": f'start: "a" {token} "b"'}).message


def test_the_length_of_a_pattern_is_counted_in_characters() -> None:
    check_structure({"regex": r"\d" * 700}, VerifierLimits(pattern_length=1400), "schema")


def test_long_structures_are_refused_by_the_operators_limits() -> None:
    assert "PONDER_MAX_PATTERN_LENGTH" in refusal({"regex": "a" * 100}, pattern_length=50).message
    assert "PONDER_MAX_SCHEMA_BYTES" in refusal({"choice": ["a" * 100]}, schema_bytes=50).message
    assert "PONDER_MAX_SCHEMA_BYTES" in refusal({"grammar": 'start: "a"' + " " * 50}, schema_bytes=50).message


@pytest.mark.parametrize("given", [{}, {"regex": "a", "choice": ["a"]}, {"choice": []}, {"regex": ""}, {"json": {}}])
def test_a_structure_is_exactly_one_thing(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Structure.model_validate(given)
