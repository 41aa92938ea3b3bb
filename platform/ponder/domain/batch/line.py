"""Splits the bytes of a batch file into lines, and decodes lines as JSON objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

from ponder.domain.storable import JsonObject, clean, fault, is_suspicious
from ponder.errors import InvalidLine

MAX_LINE_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


def split(chunks: Iterable[bytes], max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Yields lines, numbered from 1, without line ends and blank lines. None stands for a line that is too long.

    Only `\\n` ends a line (U+2028 and the like are text). A `\\r` before it, a BOM at the start and a missing last
    newline do no harm. Holds one chunk and at most one line in memory.
    """
    number = 1
    rest = bytearray()
    is_overlong = False
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            line = None if is_overlong else bytes(rest) + piece
            yield from _numbered(number, line, max_bytes)
            number, is_overlong = number + 1, False
            rest.clear()
        if not is_overlong:
            rest += pieces[-1]
        if len(rest) > max_bytes + len(_BOM) + 1:
            is_overlong = True
            rest.clear()
    if rest or is_overlong:
        yield from _numbered(number, None if is_overlong else bytes(rest), max_bytes)


def _numbered(number: int, line: bytes | None, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    if line is not None:
        line = line.removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(_BOM)
        if not line or line.isspace():
            return
        if len(line) > max_bytes:
            line = None
    yield number, line


def decode(line: bytes | None, number: int) -> JsonObject:
    """Returns the line's JSON object, which can be stored as it is. Raises InvalidLine, which never quotes the line."""
    if line is None:
        raise InvalidLine(
            f"the line is longer than {MAX_LINE_BYTES // 1024 // 1024} MB", line=number, code="line_too_long"
        )
    try:
        text = line.decode()
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise _not_json(number, f"byte {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _not_json(number, f"{error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise _not_json(number, str(error) if isinstance(error, _NotANumber) else "too large or too deep") from None
    if not isinstance(value, dict):
        raise _not_json(number, "a line must be an object {custom_id, method, url, body}")
    if is_suspicious(text):
        found = fault(value)
        if found:
            custom_id = value.get("custom_id")
            raise InvalidLine(
                f"{found.path} {found.reason}",
                line=number,
                code=found.code,
                param=found.path,
                custom_id=clean(custom_id) if isinstance(custom_id, str) else None,
            )
    return value


class _NotANumber(ValueError):
    """NaN and the infinities, which JSON does not have, and numbers that would become infinite."""


def _refuse_constant(name: str) -> None:
    raise _NotANumber(f"{name} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise _NotANumber("a number is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _not_json(number: int, reason: str) -> InvalidLine:
    return InvalidLine(f"the line is not JSON: {reason}", line=number, code="invalid_json_line")
