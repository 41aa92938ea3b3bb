"""Checks that a structure can be enforced. For some this takes long, so call it where it can be stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from ponder.domain.enforced_schema import Place, parts, place_of, why_not_enforced
from ponder.domain.storable import JsonObject
from ponder.domain.structure import grammar_of
from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import InvalidInput

_SHOWN = 200
_SPECIAL = "no tokenizer"
"""The beginning of llguidance's warning of a token that only a tokenizer could tell."""
_UNKNOWN = re.compile(r'Unimplemented keys: \["([^"]+)"')
_REMEDY = "; with strict: false answers are only verified"


def check_structure(structure: JsonObject, limits: VerifierLimits, param: str) -> None:
    """Raises InvalidInput for a structure that is invalid, beyond the limits or not to be enforced.

    structure: as a job's request holds it. param: the field that holds it. A schema must have been checked already.
    """
    ((kind, given),) = structure.items()
    _check_size(kind, given, limits, param)
    found = _fault(to_json(structure))
    if found is not None:
        place, reason = found
        where = param + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
        remedy = _REMEDY if kind == "json_schema" else ""
        raise InvalidInput(f"{where}: {reason}{remedy}", param=where, code="invalid_structure")


def _check_size(kind: str, given: Any, limits: VerifierLimits, param: str) -> None:
    if kind == "regex":
        size, unit, most, setting = len(given), "characters", limits.pattern_length, "PATTERN_LENGTH"
    else:
        size, unit, most, setting = len(to_json(given)), "bytes", limits.schema_bytes, "SCHEMA_BYTES"
    if size > most:
        raise InvalidInput(
            f"{param}: it has {size} {unit}, and at most {most} are allowed (PONDER_MAX_{setting})",
            param=param,
            code="invalid_structure",
        )


@lru_cache(maxsize=64)
def _fault(written: bytes) -> tuple[Place, str] | None:
    """Returns the place of what is wrong, and why. Cached, because many lines share a structure."""
    structure = from_json(written)
    schema = structure.get("json_schema")
    if schema is None:
        reason = _why_invalid(structure)
        return None if reason is None else ((), reason)
    found = dict(parts(schema))
    for place, part in found.items():
        wrong = why_not_enforced(part, set(found))
        if wrong is not None:
            return (*place, wrong[0]), wrong[1]
    reason = _why_invalid(structure)
    return None if reason is None else _placed(found, reason)


def _placed(found: Mapping[Place, JsonObject], reason: str) -> tuple[Place, str]:
    """Returns the innermost place that is refused by itself, and why.

    found: the parts of a schema that is refused, outer ones first. What is in an accepted part is not looked at.
    """
    place: Place = ()
    accepted: Place | None = None
    for inner in found:
        if inner[: len(place)] != place or (accepted is not None and inner[: len(accepted)] == accepted):
            continue
        if said := _why_invalid({"json_schema": _part_of(found, inner)}):
            place, reason = inner, said
        else:
            accepted = inner
    keyword = _UNKNOWN.search(reason)
    return ((*place, keyword[1]), "it is not supported") if keyword else (place, reason)


def _part_of(found: Mapping[Place, JsonObject], place: Place) -> JsonObject:
    """Returns a schema that is one part of another, with all that the part refers to, and nothing else."""
    names, waiting = {place: "0"}, [place]

    def definition_of(reference: str) -> str:
        target = place_of(reference)
        if target is None or target not in found:
            return reference  # an example that looks like one
        if target not in names:
            names[target] = str(len(names))
            waiting.append(target)
        return f"#/$defs/{names[target]}"

    definitions = {}
    while waiting:
        inner = waiting.pop()
        definitions[names[inner]] = _moved(found[inner], definition_of)
    return {"$ref": "#/$defs/0", "$defs": definitions}


def _moved(value: Any, definition_of: Callable[[str], str]) -> Any:
    """Returns a part whose references lead to the definitions of what they led to."""
    if isinstance(value, list):
        return [_moved(item, definition_of) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(item, definition_of) for name, item in value.items() if name != "$schema"}
    reference = moved.get("$ref")
    return moved | {"$ref": definition_of(reference)} if isinstance(reference, str) else moved


def _why_invalid(structure: JsonObject) -> str | None:
    from llguidance import LLMatcher, LLTokenizer

    grammar = grammar_of(structure)
    is_wrong, said = LLMatcher.validate_grammar_with_warnings(grammar)
    if is_wrong:
        return _short(said[0])
    if any(_SPECIAL in warning for warning in said):
        return "special tokens, such as <|end|> or <[5]>, cannot be used: they differ between models"
    # What takes long to compile takes long here too, where it can be stopped.
    matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    matcher.compute_bitmask()
    return _short(matcher.get_error()) if matcher.is_error() else None


def _short(said: str) -> str:
    line = " ".join(said.partition(" while processing json-schema:")[0].split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
