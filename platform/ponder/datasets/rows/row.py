"""The row of a file, and helpers that all kinds of files share."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from ponder.domain.batch.line import MAX_LINE_BYTES

MAX_ROW = MAX_LINE_BYTES
"""The most characters in a row, because the server accepts no longer line."""

SPACE = " \t\r\n\v\f"
"""The characters of a blank line. Blank lines are not rows."""

TOO_LONG = f"it is longer than {MAX_ROW // 1024 // 1024} MB, the most that a row may have"


@dataclass(frozen=True, slots=True)
class Row:
    """A row. `values` is None if it could not be read, and `trouble` says why.

    `number` increases from row to row, and is the line if each row has a line of its own. `place` is for people, such
    as "line 7" or "row 3". `raw` is the line with its end, if the file is JSON with one row per line.
    """

    number: int
    place: str
    values: Mapping[str, Any] | None
    trouble: str = ""
    raw: str = ""


Rows = Generator[Row, None, None]


def lines(text: TextIO) -> Iterator[str | None]:
    """Yields lines with their ends. None stands for a line that is too long, which is skipped without being held."""
    while line := text.readline(MAX_ROW + 2):
        if len(line) <= MAX_ROW + 1 or line.endswith("\n"):
            yield line
            continue
        line = text.readline(MAX_ROW)
        while len(line) == MAX_ROW and not line.endswith("\n"):
            line = text.readline(MAX_ROW)
        yield None


def shown(field: str) -> str:
    """Returns a field's name for a message, in quotes if it would be hard to read."""
    return field if field.isprintable() and field == field.strip() and field and "," not in field else repr(field)


def without_nan(value: Any) -> Any:
    """Returns the value with None for every NaN, which is how pandas and Arrow write missing values."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list) else value
