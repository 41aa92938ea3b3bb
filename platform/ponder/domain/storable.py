"""What Postgres can keep: text without NUL and lone surrogates, finite numbers, nested no deeper than anyone needs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_DEPTH = 100
_SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Fault:
    """`path` is where it is (`body.messages[0].content`); `code` and `reason` say what it is."""

    path: str
    code: str
    reason: str


def is_suspicious(json_text: str) -> bool:
    """Whether a JSON text may decode to something with a fault; a cheap screen before `fault`."""
    return _SUSPICIOUS.search(json_text) is not None or json_text.count("{") + json_text.count("[") > MAX_DEPTH


def fault(value: Any, path: str = "", depth: int = 0) -> Fault | None:
    """The first place in a decoded JSON value that Postgres would refuse."""
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
    """The same text, storable: what Postgres would refuse becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", value).replace("\x00", "\ufffd")


def _fault_of_text(value: str, path: str) -> Fault | None:
    if "\x00" in value:
        return Fault(path, "nul_character", "contains a NUL character (\\u0000), which cannot be stored")
    if not value.isascii() and _SURROGATE.search(value):
        return Fault(path, "lone_surrogate", "contains half of a surrogate pair, which is no Unicode text")
    return None


def _check(value: str) -> str:
    found = _fault_of_text(value, "")
    if found:
        raise ValueError(found.reason)
    return value


StorableText = Annotated[str, AfterValidator(_check)]
"""For fields of API bodies that go to Postgres as text."""
