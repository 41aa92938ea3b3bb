"""Checks what Postgres can store: text without NUL and lone surrogates, finite numbers, moderate nesting."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

JsonObject = dict[str, Any]
"""A JSON object as users send or receive it."""

MAX_DEPTH = 100
_SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Fault:
    """A value that cannot be stored. `path` is its place (`body.messages[0].content`); `reason` follows the path."""

    path: str
    code: str
    reason: str


def is_suspicious(json_text: str) -> bool:
    """Returns whether a JSON text may decode to something with a fault. A cheap screen before `fault`."""
    return _SUSPICIOUS.search(json_text) is not None or json_text.count("{") + json_text.count("[") > MAX_DEPTH


def fault(value: Any, path: str = "", depth: int = 0) -> Fault | None:
    """Returns the first fault in a decoded JSON value, if any."""
    if isinstance(value, str):
        return _fault_of_text(value, path)
    if isinstance(value, float) and not math.isfinite(value):
        return Fault(path, "invalid_number", "is not a finite number")
    if depth > MAX_DEPTH:
        return Fault(path, "nested_too_deeply", f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}.{clean(key)}" if path else clean(key)
            found = _fault_of_text(key, inner) or fault(item, inner, depth + 1)
            if found:
                return found
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found = fault(item, f"{path}[{index}]", depth + 1)
            if found:
                return found
    return None


def clean(value: str) -> str:
    """Returns storable text: characters that Postgres would refuse become U+FFFD."""
    return _SURROGATE.sub("\ufffd", value).replace("\x00", "\ufffd")


def _fault_of_text(value: str, path: str) -> Fault | None:
    if "\x00" in value:
        return Fault(path, "nul_character", "contains a NUL character (\\u0000), which cannot be stored")
    if not value.isascii() and _SURROGATE.search(value):
        return Fault(path, "lone_surrogate", "contains half of a surrogate pair, which is not Unicode text")
    return None


def _check(value: str) -> str:
    found = _fault_of_text(value, "")
    if found:
        raise ValueError(found.reason)
    return value


StorableText = Annotated[str, AfterValidator(_check)]
"""Text in API bodies that Postgres can store."""
