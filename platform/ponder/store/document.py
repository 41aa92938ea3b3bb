"""Encodes Python values as JSON that Postgres accepts: one odd character from a model must not stop a worker's tick."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_REFUSED = re.compile("[\x00\ud800-\udfff]")


def dumps(value: Any) -> str:
    """Returns JSON text for `jsonb`. NUL and lone surrogates become U+FFFD; NaN and infinities become null."""
    try:
        document = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        document.encode()
    except (ValueError, UnicodeEncodeError):
        return json.dumps(clean(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # This may be a harmless backslash before "u0000", which cleaning leaves alone.
    return (
        document if "\\u0000" not in document else json.dumps(clean(value), ensure_ascii=False, separators=(",", ":"))
    )


def clean(value: Any) -> Any:
    """Returns the value without characters and numbers that Postgres refuses."""
    if isinstance(value, str):
        return _REFUSED.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
