"""Translates pydantic's errors into ours: a code for programs, the field's path, and a sentence without the input."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from ponder.domain.strategy import ACCEPT_NAMES, STRATEGY_NAMES
from ponder.domain.verifier import VERIFIER_NAMES
from ponder.errors import InvalidInput

_TAGS = {"strategy": set(STRATEGY_NAMES), "accept": set(ACCEPT_NAMES), "verifier": set(VERIFIER_NAMES)}
_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_field",
    "none_required": "unsupported_field",
    "unsupported_content": "unsupported_content",
}
_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "none_required": "is not supported",
}


def explain(error: ValidationError, *root: str) -> InvalidInput:
    """Translates the first of the errors. `root` goes before its path."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    location = (*root, *first["loc"])
    param = path(location)
    kind = first["type"]
    code = _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
    if {"budget", "batch_budget"} & set(location) and kind != "extra_forbidden":
        code = "invalid_budget"
    sentence = _SENTENCES.get(kind) or first["msg"][:1].lower() + first["msg"][1:]
    return InvalidInput(f"{param}: {sentence}" if param else sentence, param=param or None, code=code)


def path(location: Sequence[str | int]) -> str:
    """Writes `('messages', 0, 'content')` as `messages[0].content`, without the tags that pydantic adds for unions."""
    written = ""
    previous: str | int = ""
    for step in location:
        if step in _TAGS.get(str(previous), ()):
            previous = step
            continue
        if isinstance(step, int):
            written += f"[{step}]"
        else:
            written += f".{step}" if written else step
        previous = step
    return written
