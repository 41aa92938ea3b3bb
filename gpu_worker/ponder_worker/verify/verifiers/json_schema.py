"""Passes JSON that a schema accepts."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from jsonschema import SchemaError
from jsonschema.exceptions import best_match
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from ponder.domain.verifier import JsonSchema
from ponder_worker.verify.case import Judgement

_SHOWN = 200
"""Characters of a path or message. Its start names the value, and its end what the value should be."""
_NOTHING_ELSEWHERE: Registry[Any] = Registry()
"""No schemas but the given one. Otherwise jsonschema fetches a `$ref`, even from our own network and disk."""


def examine(answer: str, spec: JsonSchema, reference: str) -> Judgement:
    schema = spec.json_schema
    try:
        value = json.loads(answer, parse_constant=_no_constant)
    except ValueError as error:
        return Judgement.of(False, f"the answer is not JSON: {error}")
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        return Judgement.of(False, f"the schema itself is wrong: {error.message[:_SHOWN]}")
    try:
        wrong = best_match(kind(schema, registry=_NOTHING_ELSEWHERE).iter_errors(value))
    except Unresolvable as error:
        return Judgement.of(False, f"the schema refers to a schema that it does not contain: {error.ref[:_SHOWN]}")
    return Judgement.of(wrong is None, f"at {_short(wrong.json_path)}: {_short(wrong.message)}" if wrong else "")


def _no_constant(name: str) -> NoReturn:
    """Rejects NaN, Infinity and -Infinity, which Python accepts although JSON has no such values."""
    raise ValueError(f"{name} is not a JSON value")


def _short(text: str) -> str:
    half = _SHOWN // 2
    return text if len(text) <= _SHOWN else f"{text[:half]} … {text[-half:]}"
