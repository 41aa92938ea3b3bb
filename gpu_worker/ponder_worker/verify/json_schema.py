"""JSON that a schema accepts."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from ponder_worker.verify.case import Judgement

_SHOWN = 200


def examine(answer: str, schema: dict[str, Any]) -> Judgement:
    try:
        value = json.loads(answer)
    except ValueError as error:
        return Judgement.of(False, f"the answer is not JSON: {error}")
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        return Judgement.of(False, f"the schema itself is wrong: {error.message[:_SHOWN]}")
    wrong = next(iter(kind(schema).iter_errors(value)), None)
    return Judgement.of(wrong is None, f"at {wrong.json_path}: {wrong.message[:_SHOWN]}" if wrong else "")
