"""Bodies of `POST /v1/batches` that are small to send and expensive to read. `num_bytes` is their approximate size."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_WIDE_SET = "[\x01-\U0010fffe]"


def _submission(**ponder: Any) -> dict[str, Any]:
    return {
        "input_file_id": "file-00",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "ponder": ponder,
    }


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return _submission(verifier={"name": "json_schema", "schema": schema})


def _pattern(pattern: str) -> dict[str, Any]:
    return _submission(verifier={"name": "regex", "pattern": pattern})


def _nested(num: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(min(num, 300)):  # the recursion of whoever writes it down
        schema = {"not": schema}
    return schema


def _ring(num: int) -> dict[str, Any]:
    return {"$defs": {f"d{i}": {"$anchor": f"a{i}", "items": {"$ref": f"#a{(i + 1) % num}"}} for i in range(num)}}


EXPENSIVE: dict[str, Callable[[int], dict[str, Any]]] = {
    "a pattern of wide sets without case": lambda n: _pattern("(?i)" + _WIDE_SET * (n // 10)),
    "a pattern of nested groups": lambda n: _pattern("(" * (n // 2) + ")" * (n // 2)),
    "a pattern of alternatives": lambda n: _pattern("|".join(f"a{i}" for i in range(n // 5))),
    "a schema with a pattern of wide sets": lambda n: _schema({"pattern": "(?i)" + _WIDE_SET * (n // 10)}),
    "a schema with names of wide sets": lambda n: _schema({"patternProperties": {"(?i)" + _WIDE_SET * (n // 10): {}}}),
    "a schema of many parts": lambda n: _schema({"allOf": [{}] * (n // 4)}),
    "a schema of many booleans": lambda n: _schema({"anyOf": [True] * (n // 6)}),
    "a schema of many definitions": lambda n: _schema({"$defs": {f"d{i}": {} for i in range(n // 12)}}),
    "a schema of references in a ring": lambda n: _schema(_ring(n // 60)),
    "a schema with names that cannot be sorted": lambda n: _schema({"required": [[i] for i in range(n // 8)]}),
    "a deep schema": lambda n: _schema(_nested(n // 9)),
    "many fields that nobody knows": lambda n: _submission() | {f"x{i}": 0 for i in range(n // 12)},
    "many empty lists": lambda n: _submission() | {"metadata": {"a": [[]] * (n // 4)}},
    "many tests": lambda n: _submission(
        verifier={"name": "python_tests", "cases": [{"stdin": "", "stdout": ""}] * (n // 30)}
    ),
    "many texts": lambda n: _submission(verifier={"name": "contains", "texts": ["a"] * (n // 5)}),
    "a long text of escapes": lambda n: _submission(reference="\x01" * (n // 6)),
}


def expensive(name: str, num_bytes: int) -> bytes:
    return json.dumps(EXPENSIVE[name](num_bytes), ensure_ascii=False).encode()
