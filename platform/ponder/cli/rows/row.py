"""One row of a file, and what every kind of file has in common."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from ponder.domain.line import MAX_LINE_BYTES

MAX_ROW = MAX_LINE_BYTES
"""The most characters that a row may have: the server takes no longer line."""

SPACE = " \t\r\n\v\f"
"""What a blank line may hold; blank lines are no rows."""

TOO_LONG = f"it is longer than {MAX_ROW // 1024 // 1024} MB, the most that a row may have"


@dataclass(frozen=True, slots=True)
class Row:
    """`values` is None where the row could not be read, and `trouble` says why.

    number: rises from row to row; the line of the file where rows stand in lines of their own.
    place: where a person finds it, "line 7" or "row 3".
    raw: the line as it is, with its end, where one line is one row in JSON.
    """

    number: int
    place: str
    values: Mapping[str, Any] | None
    trouble: str = ""
    raw: str = ""


Rows = Generator[Row, None, None]


def lines(text: TextIO) -> Iterator[str | None]:
    """The lines with their ends; None stands for one that is too long, which is passed over without being held."""
    while line := text.readline(MAX_ROW + 2):
        if len(line) <= MAX_ROW + 1 or line.endswith("\n"):
            yield line
            continue
        line = text.readline(MAX_ROW)
        while len(line) == MAX_ROW and not line.endswith("\n"):
            line = text.readline(MAX_ROW)
        yield None


def shown(field: str) -> str:
    """A field's name in a message, in quotes where a reader would not see what it is."""
    return field if field.isprintable() and field == field.strip() and field and "," not in field else repr(field)


def without_nan(value: Any) -> Any:
    """The same with None for every NaN, which is how pandas and Arrow write what is missing."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list) else value
