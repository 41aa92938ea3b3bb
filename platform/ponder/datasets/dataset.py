"""Turns a data set into the lines of an OpenAI batch file, as a stream."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from ponder.datasets.rows.row import Row, shown
from ponder.datasets.source import Source
from ponder.datasets.surface import Surface
from ponder.domain import storable
from ponder.domain.batch.endpoint import CHAT, COMPLETIONS, Endpoint
from ponder.domain.batch.line import MAX_LINE_BYTES, decode
from ponder.domain.batch.request import MAX_CUSTOM_ID
from ponder.errors import InvalidInput, InvalidLine
from ponder.wire import Json

_LIKELY = {
    "prompt": ("messages", "prompt", "question", "problem", "instruction", "input"),
    "answer": ("answer", "expected_answer", "solution", "target", "output", "reference"),
    "id": ("id", "custom_id", "unique_id", "uid"),
    "level": ("level", "difficulty"),
}
_MOST_KEPT = 10
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Fields:
    """The names of a row's fields by purpose. None means that there is no such field."""

    prompt: str | None = None
    answer: str | None = None
    id: str | None = None
    level: str | None = None

    @classmethod
    def likely(cls, known: Sequence[str]) -> Fields:
        """Guesses by the names that many data sets use."""
        folded = {name.casefold(): name for name in reversed(known)}
        found = {
            purpose: next((folded[name] for name in names if name in folded), None)
            for purpose, names in _LIKELY.items()
        }
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused row. `place` is its place in the file, such as "line 7"."""

    place: str
    reason: str


@dataclass(slots=True)
class Count:
    """Counts of submitted and refused rows, with the first few refusals."""

    num_rows: int = 0
    num_refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, refusal: Refusal) -> None:
        self.num_refused += 1
        if len(self.refusals) < _MOST_KEPT:
            self.refusals.append(refusal)


@dataclass(slots=True)
class Dataset:
    """The lines for the server, and the count of rows.

    A row that cannot be read or lacks a named field is sent as a line with the reason, with which the server refuses
    it. So the row counts, is in the error file, and never stops the others. `body` (the model, sampling parameters)
    overrides every line. A row of a plain data set becomes a request to the `endpoint`.
    """

    source: Source
    fields: Fields
    body: Mapping[str, Any]
    system: str | None = None
    endpoint: Endpoint = CHAT
    count: Count = field(default_factory=Count)

    def check(self) -> None:
        """Raises InvalidInput if the file as a whole does not match the options."""
        path, surface = self.source.file, self.source.surface
        if self.source.is_batch():
            if self.fields != Fields():
                names = f"{surface.prompt}, {surface.answer}, {surface.id} and {surface.level}"
                reason = f"{path} has OpenAI batch lines, which name their prompts themselves: omit {names}"
                raise InvalidInput(reason)
            return
        known = self.source.fields()
        if not known:
            raise InvalidInput(f"{path}: no row can be read ({self.source.first_trouble()})")
        if self.fields.prompt is None:
            raise InvalidInput(f"{path} has the fields {_listed(known)}: {_advice(known, surface)}")
        for option in fields(Fields):
            name = getattr(self.fields, option.name)
            if name is not None and name not in known and not self.source.has(name):
                where = f"the field {name!r} of {surface.name(option.name)}"
                raise InvalidInput(f"{path}: no row has {where}; the fields are {_listed(known)}")
        if "model" not in self.body:
            raise InvalidInput(f"name a model with {surface.model} (`ponder doctor` lists those with a worker)")

    def lines(self) -> Iterator[bytes]:
        """Yields every line of the batch file, from the beginning.

        Line 7 of the file is line 7 of the upload too, so that the server's errors name the right one.
        """
        self.count = Count()
        make = self._batch_line if self.source.is_batch() else self._line
        num_lines = 0
        for row in self.source.rows():
            self.count.num_rows += 1
            yield b"\n" * (row.number - num_lines - 1) + make(row)
            num_lines = row.number

    def _batch_line(self, row: Row) -> bytes:
        """Returns a line as it is, unless the command line overrides something. The server refuses unreadable lines."""
        if row.values is None and not row.raw:
            return self._refused(row, f"line-{row.number}", row.trouble)
        written = row.raw.encode("utf-8", "surrogateescape") or json.dumps(row.values).encode() + b"\n"
        try:
            document = decode(written, row.number)
        except InvalidLine as error:
            self.count.refuse(Refusal(row.place, error.message))
            return written
        if not self.body or not isinstance(document.get("body"), dict):
            return written
        document["body"] |= self.body
        return json.dumps(document).encode() + b"\n"

    def _line(self, row: Row) -> bytes:
        custom_id = f"row-{self.count.num_rows}"
        try:
            if row.values is None:
                raise InvalidInput(row.trouble)
            if self.fields.id is not None:
                custom_id = text_of(row.values, self.fields.id)
            body = {**self._body(row.values), **self.body}
            return _encoded({"custom_id": custom_id, "method": "POST", "url": self.endpoint, "body": body})
        except InvalidInput as error:
            return self._refused(row, custom_id, error.message)

    def _body(self, values: Mapping[str, Any]) -> Json:
        assert self.fields.prompt is not None, "check() was not called"
        if self.endpoint == COMPLETIONS:
            return {"prompt": text_of(values, self.fields.prompt)} | self._about(values)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {"messages": [*system, *_messages(values, self.fields.prompt)]} | self._about(values)

    def _about(self, values: Mapping[str, Any]) -> Json:
        """Returns what a row says about its prompt."""
        body: Json = {}
        if self.fields.answer is not None:
            body["ponder"] = {"reference": text_of(values, self.fields.answer)}
        if self.fields.level is not None:
            # A missing level only matters in reports.
            with suppress(InvalidInput):
                body["metadata"] = {"level": text_of(values, self.fields.level)}
        return body

    def _refused(self, row: Row, custom_id: str, reason: str) -> bytes:
        """Makes the line that tells the server what was wrong with a row."""
        self.count.refuse(Refusal(row.place, reason))
        message = f"{_short(self.source.file.name)}, {row.place}: {reason}"
        error = {"code": "invalid_row", "message": storable.clean(message)}
        return _encoded({"custom_id": storable.clean(custom_id)[:MAX_CUSTOM_ID], "error": error})


def _encoded(document: Json) -> bytes:
    """Encodes a line. Raises InvalidInput for one that the server could not store."""
    written = json.dumps(document, default=_written)
    if len(written) > MAX_LINE_BYTES:
        raise InvalidInput(f"it makes a line of {len(written):,} bytes: at most {MAX_LINE_BYTES:,} are allowed")
    found = storable.fault(document) if storable.is_suspicious(written) else None
    if found:
        raise InvalidInput(f"{found.path} {found.reason}")
    return written.encode() + b"\n"


def _messages(values: Mapping[str, Any], name: str) -> list[Any]:
    """Returns the prompt as one message, or a conversation in the field as it is, without empty keys."""
    value = values.get(name)
    if isinstance(value, list):
        if not value:
            raise InvalidInput(f"its field {name!r} is an empty conversation")
        if any(isinstance(part, dict) and "role" in part for part in value):
            return [_without_nulls(part) if isinstance(part, dict) else part for part in value]
    return [{"role": "user", "content": text_of(values, name)}]


def _without_nulls(message: Json) -> Json:
    return {key: value for key, value in message.items() if value is not None}


def text_of(values: Mapping[str, Any], name: str) -> str:
    """Returns a field of a row as text. Raises InvalidInput if it is missing or empty."""
    value = values.get(name)
    if value is None:
        raise InvalidInput(f"it has no field {name!r}" if name not in values else f"its field {name!r} is empty")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"its field {name!r} is {value}, which is not a finite number")
    text = json.dumps(value, default=_written) if isinstance(value, dict | list) else _written(value)
    if not text.strip():
        raise InvalidInput(f"its field {name!r} is empty")
    return text


def _written(value: object) -> str:
    """Returns the text of a value that JSON has no form for, such as a date."""
    if isinstance(value, bytes):
        raise InvalidInput("it contains bytes that are not UTF-8 text")
    return str(value)


def _short(name: str) -> str:
    """Shortens a file's name: the server keeps only the start of a message, and the reason follows the name."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 13]}…{name[-12:]}"


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(map(shown, fields))


def _advice(fields: Sequence[str], surface: Surface) -> str:
    """Suggests settings for a data set with these fields."""
    likely = Fields.likely(fields)
    if likely.prompt is None:
        return f"name the one with the problem as {surface.prompt}, and the one with the answer as {surface.answer}"
    answer = "" if likely.answer is None else f" and {surface.chosen('answer', likely.answer)}"
    return f"which one is the problem? Perhaps {surface.chosen('prompt', likely.prompt)}{answer}"
