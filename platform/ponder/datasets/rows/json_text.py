"""Reads JSON: one object per line, or one array of objects."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, TextIO

from ponder.datasets.rows.encoding import fault
from ponder.datasets.rows.row import MAX_ROW, SPACE, TOO_LONG, Row, Rows, lines
from ponder.errors import InvalidInput

_CONSTANTS = {"NaN": None, "Infinity": float("inf"), "-Infinity": float("-inf")}
_DECODER = json.JSONDecoder(parse_constant=_CONSTANTS.__getitem__)
_PIECE = 64 * 1024


def line_rows(text: TextIO) -> Rows:
    """Yields the rows of a text, which must be opened with newline="\\n", because other line ends are text."""
    is_first = True
    for number, line in enumerate(lines(text), start=1):
        if line is None:
            yield Row(number, f"line {number}", None, TOO_LONG)
        elif line.strip(SPACE):
            row = _row(number, f"line {number}", line)
            yield replace(row, trouble=row.trouble + _hint(line)) if is_first and row.trouble else row
            is_first = False


def _row(number: int, place: str, line: str) -> Row:
    trouble = fault(line)
    values = None
    try:
        values = _DECODER.decode(line.strip(SPACE))
    except (ValueError, RecursionError) as error:
        trouble = trouble or f"it is not JSON ({_reason(error)})"
    return _checked(number, place, values, trouble, line)


def _hint(line: str) -> str:
    """Guesses the kind of a file whose first line is not an object."""
    line = line.strip(SPACE)
    if line.startswith("["):
        return "; if the file is one array of objects, call it .json"
    if line.startswith("{") and not line.endswith("}"):
        return "; the object continues on the next line: put each one on a line, or all into an array in a .json file"
    return ""


def _checked(number: int, place: str, value: Any, trouble: str | None, raw: str = "") -> Row:
    if not trouble and not isinstance(value, dict):
        trouble = "it is not a JSON object"
    return Row(number, place, None if trouble else value, trouble or "", raw)


def array_rows(text: TextIO) -> Rows:
    """Yields the elements of an array, holding one in memory at a time.

    Raises InvalidInput if the text is not an array, because after a broken element nothing tells where the next begins.
    """
    window = _Window(text)
    window.take("[")
    number = 0
    while not window.takes("]"):
        if number:
            window.take(",")
        number += 1
        place = f"row {number} (line {window.line_of_next()})"
        value, trouble = window.element(place)
        yield _checked(number, place, value, trouble)
    if window.peek():
        raise InvalidInput(
            f"line {window.line_of_next()}: there is more after the end of the array; "
            "a file with one JSON object per line must be called .jsonl"
        )


class _Window:
    """The part of a text that is being read."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._part = ""
        self._at = 0
        self._line = 1

    def peek(self) -> str:
        """Returns the next character that is not white space, or nothing at the end."""
        while True:
            while self._at < len(self._part) and self._part[self._at] in SPACE:
                self._line += self._part[self._at] == "\n"
                self._at += 1
            if self._at < len(self._part) or not self._more(_PIECE):
                return self._part[self._at : self._at + 1]

    def line_of_next(self) -> int:
        self.peek()
        return self._line

    def takes(self, wanted: str) -> bool:
        """Reads this character if it is next, and returns whether it was."""
        is_next = self.peek() == wanted
        self._at += is_next
        return is_next

    def take(self, wanted: str) -> None:
        if not self.takes(wanted):
            found = self.peek() or "the end of the file"
            raise InvalidInput(f"line {self._line}: the array is broken: {wanted} is expected, but there is {found}")

    def element(self, place: str) -> tuple[Any, str | None]:
        """Returns the value that begins here, and what is wrong with its encoding."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._part, self._at)
                # A number may continue in the next piece.
                if end < len(self._part) or not self._more(_PIECE):
                    break
            except (ValueError, RecursionError) as error:
                num_read = len(self._part) - self._at
                if num_read > MAX_ROW:
                    raise InvalidInput(f"{place}: {TOO_LONG}, or is broken ({_reason(error)})") from None
                # Each try reads twice as far, so that all tries together cost no more than a few full ones.
                if isinstance(error, RecursionError) or not self._more(max(_PIECE, num_read)):
                    raise InvalidInput(f"{place}: it is not JSON ({_reason(error)})") from None
        written = self._part[self._at : end]
        self._line += written.count("\n")
        self._at = end
        return value, fault(written)

    def _more(self, num_characters: int) -> bool:
        """Reads more and forgets what was already read. Returns whether there was more."""
        piece = self._text.read(num_characters)
        self._part, self._at = self._part[self._at :] + piece, 0
        return bool(piece)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
