"""Checks a user's pattern or schema. For some this takes long, so call it where it can be stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from ponder.domain.schema import check_schema
from ponder.domain.storable import JsonObject
from ponder.domain.verifier import JsonSchema, Regex, Verifier
from ponder.errors import InvalidInput


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
    return isinstance(verifier, Regex | JsonSchema)


def check_verifier(verifier: Verifier | None, limits: VerifierLimits, param: str) -> None:
    """Raises InvalidInput for a pattern or schema that is invalid or beyond the limits. `param` names the verifier."""
    if isinstance(verifier, Regex):
        _check_pattern(verifier.pattern, limits, f"{param}.pattern")
    elif isinstance(verifier, JsonSchema):
        check_limited_schema(verifier.json_schema, limits, f"{param}.schema")


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
