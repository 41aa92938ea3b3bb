"""Reads CSV and TSV strictly: a line that makes no row is refused, and the lines after it are read again."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import TextIO

from ponder.datasets.rows.encoding import fault
from ponder.datasets.rows.row import MAX_ROW, TOO_LONG, Row, Rows, lines, shown
from ponder.errors import InvalidInput

_TROUBLES = {
    "unexpected end of data": "a quote is opened in it but never closed",
    "expected after": "a quote is closed in the middle of a cell (double a quote inside a quoted cell)",
}


_NUMBER = re.compile(r"[-+$€£]?[0-9]+(?:[.,/:][0-9]+)*%?")


class _TooLong(Exception):
    """A row is too long. The message says how."""


class _Lines(Iterator[str]):
    """The lines of a file, with a way back to the second line of the current record."""

    def __init__(self, text: TextIO) -> None:
        self._lines = lines(text)
        self._again: deque[str | None] = deque()
        self._record: list[str | None] = []
        self._num_characters = 0
        self.number = 1
        """The line at which the current record begins."""

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._record.append(line)
        if line is None:
            raise _TooLong(TOO_LONG if len(self._record) == 1 else _TROUBLES["unexpected end of data"])
        self._num_characters += len(line)
        if self._num_characters > MAX_ROW:
            raise _TooLong(TOO_LONG if len(self._record) == 1 else _open_quote())
        return line

    def begin(self) -> None:
        """Begins a record with the next line."""
        self.number += len(self._record)
        self._forget()

    def end_after_first(self) -> None:
        """Ends the record after its first line, so that the lines after it are read again."""
        self._again.extendleft(reversed(self._record[1:]))
        del self._record[1:]

    def swallowed(self, dialect: str, num_cells: int) -> str:
        """Returns the trouble with a record whose every line looks like a row of its own, or nothing.

        Two stray quotes make one cell of all the rows between them. In two lines the number of commas is not enough
        evidence, because a prompt of two lines often has as many: their cells must be alike, too.
        """
        written = [line for line in self._record if line is not None]
        if num_cells < 2 or len(written) < 2 or not all(_num_cells(line, dialect) == num_cells for line in written):
            return ""
        if len(written) == 2 and not _are_alike(written[0], written[1], dialect):
            return ""
        return (
            f"a quote opened in it closes on line {self.last}, and each line up to there looks like a row: "
            "double a quote inside a cell, or use JSONL if it is one cell"
        )

    @property
    def last(self) -> int:
        """The line in which the current record ends."""
        return self.number + len(self._record) - 1

    def is_blank(self) -> bool:
        """Returns whether the record is a blank line, possibly of spaces. Tabs are cells in TSV."""
        return len(self._record) == 1 and self._record[0] is not None and not self._record[0].strip(" \r\n")

    def _forget(self) -> None:
        self._record.clear()
        self._num_characters = 0


def _num_cells(line: str, dialect: str) -> int:
    """Counts the cells of a line read alone, with its quotes as far as they are closed."""
    cells = next(csv.reader([line], dialect), [])
    if not cells or not cells[-1].endswith(("\n", "\r")):
        return len(cells)
    return len(cells) + cells[-1].count(csv.get_dialect(dialect).delimiter)


def _are_alike(one: str, other: str, dialect: str) -> bool:
    """Returns whether two lines have the same kinds of cells, quotes apart: numbers below numbers.

    A comma before a blank or within brackets belongs to a sentence or to a formula.
    """
    delimiter = csv.get_dialect(dialect).delimiter
    cells, others = ([cell.strip('"\r\n') for cell in line.split(delimiter)] for line in (one, other))
    if len(cells) != len(others) or not all((*cells, *others)) or any(cell[0] == " " for cell in cells[1:]):
        return False
    return all(map(_is_closed, cells)) and list(map(_is_number, cells)) == list(map(_is_number, others))


def _is_closed(cell: str) -> bool:
    return all(cell.count(opening) == cell.count(closing) for opening, closing in ("()", "[]", "{}"))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _open_quote() -> str:
    return f"a quote is opened in it but not closed within {MAX_ROW // 1024 // 1024} MB"


def rows(text: TextIO, dialect: str) -> Rows:
    """Yields the rows of a text, which must be opened with newline=""."""
    csv.field_size_limit(min(2**31 - 1, sys.maxsize))
    source = _Lines(text)
    records = _records(source, csv.reader(source, dialect, strict=True))
    header = _header(next(records, None))
    for number, cells, trouble in records:
        trouble = trouble or source.swallowed(dialect, len(header))
        if not trouble and len(cells) != len(header):
            extent = f"continues to line {source.last} because of a quote, and has" if source.last > number else "has"
            trouble = f"it {extent} {len(cells)} cell{'s' * (len(cells) != 1)}, but the header has {len(header)}"
        trouble = trouble or fault("".join(cells)) or ""
        values = None if trouble else dict(zip(header, map(_value, cells), strict=True))
        yield Row(number, f"line {number}", values, trouble)


_Record = tuple[int, list[str], str]


def _records(source: _Lines, reader: Iterator[list[str]]) -> Iterator[_Record]:
    """Yields records: the line where each begins, its cells, and what is wrong with it."""
    while True:
        source.begin()
        cells: list[str] = []
        trouble = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            trouble = next((ours for theirs, ours in _TROUBLES.items() if theirs in str(error)), str(error))
            source.end_after_first()
        if not source.is_blank():
            yield source.number, cells, trouble


def _header(record: _Record | None) -> list[str]:
    if record is None:
        return []
    number, names, trouble = record
    if trouble:
        raise InvalidInput(f"line {number}, the header, cannot be read: {trouble}")
    double = [shown(name) for name, num in Counter(names).items() if num > 1 and name]
    if double:
        raise InvalidInput(f"line {number}, the header, names {', '.join(islice(double, 5))} more than once")
    return names


def _value(cell: str) -> str | None:
    return None if cell.strip().lower() == "nan" else cell
