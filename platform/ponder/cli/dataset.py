"""From a data set to the lines of an OpenAI batch file, as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ponder.cli.source import Row, Source
from ponder.errors import InvalidInput

_LIKELY_PROMPTS = ("prompt", "question", "problem", "instruction", "input")
_LIKELY_ANSWERS = ("answer", "expected_answer", "solution", "target", "output", "reference")
_MOST_KEPT = 10


@dataclass(frozen=True, slots=True)
class Fields:
    """Which field of a row is what; None where it has no such thing."""

    prompt: str | None = None
    answer: str | None = None
    id: str | None = None
    level: str | None = None


@dataclass(slots=True)
class Dataset:
    """Lines for the server, and what was wrong with rows on the way.

    A row that lacks a named field goes on as a line that the server refuses: it counts, it is in the error file, and
    it never stops the others. `body` is laid over every line: the model, sampling parameters.
    """

    source: Source
    fields: Fields
    body: Mapping[str, Any]
    system: str | None = None
    num_troubles: int = 0
    troubles: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raises InvalidInput where the file as a whole cannot be what the options say."""
        if self.source.is_batch():
            if self.fields != Fields():
                raise InvalidInput(
                    f"{self.source.path} has OpenAI batch lines, which name their prompts themselves: "
                    "leave --prompt, --answer, --id and --level out"
                )
            return
        known = self.source.fields()
        if not known:
            raise InvalidInput(f"{self.source.path}: there is no row in it that can be read")
        if self.fields.prompt is None:
            raise InvalidInput(f"{self.source.path} has the fields {', '.join(known)}: {_advice(known)}")
        if "model" not in self.body:
            raise InvalidInput("which model shall answer? --model NAME (`ponder doctor` lists those with a worker)")

    def lines(self) -> Iterator[bytes]:
        """Every line of the batch file, from the beginning."""
        self.num_troubles, self.troubles = 0, []
        if self.source.is_batch():
            yield from self._batch_lines()
        else:
            for number, row in enumerate(self.source.rows(), start=1):
                yield json.dumps(self._line(number, row), default=str).encode() + b"\n"

    def _batch_lines(self) -> Iterator[bytes]:
        """As they are, unless the command line overrides something in them."""
        for line in self.source.lines():
            if not self.body:
                yield line
                continue
            try:
                document = json.loads(line)
                document["body"] |= self.body
            except (ValueError, TypeError, KeyError, RecursionError):
                yield line  # the server says what is wrong with it
            else:
                yield json.dumps(document).encode() + b"\n"

    def _line(self, number: int, row: Row) -> dict[str, Any]:
        custom_id = f"row-{number}"
        body: dict[str, Any] = {}
        try:
            if row.values is None:
                raise InvalidInput(row.trouble)
            if self.fields.id is not None:
                custom_id = _text(row.values, self.fields.id)
            body = self._body(row.values)
        except InvalidInput as error:
            self._note(f"{self.source.path}, {_place(self.source, row)}: {error}")
        return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {**body, **self.body}}

    def _body(self, values: Mapping[str, Any]) -> dict[str, Any]:
        assert self.fields.prompt is not None, "check() was not called"
        system = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {"messages": [*system, *_messages(values, self.fields.prompt)]}
        if self.fields.answer is not None:
            body["ponder"] = {"reference": _text(values, self.fields.answer)}
        if self.fields.level is not None:
            body["metadata"] = {"level": _text(values, self.fields.level)}
        return body

    def _note(self, trouble: str) -> None:
        self.num_troubles += 1
        if len(self.troubles) < _MOST_KEPT:
            self.troubles.append(trouble)


def _messages(values: Mapping[str, Any], name: str) -> list[Any]:
    """The prompt as one message; a field that holds a whole conversation is taken as it is."""
    value = values.get(name)
    if isinstance(value, list) and value and all(isinstance(part, dict) and "role" in part for part in value):
        return value
    return [{"role": "user", "content": _text(values, name)}]


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        raise InvalidInput(f"it has no field {name!r}" if name not in values else f"its field {name!r} is empty")
    text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
    if not text.strip():
        raise InvalidInput(f"its field {name!r} is empty")
    return text


def _place(source: Source, row: Row) -> str:
    return f"row {row.line}" if source.form == "parquet" else f"line {row.line}"


def _advice(known: list[str]) -> str:
    """What to type."""
    prompt = next((name for name in _LIKELY_PROMPTS if name in known), None)
    answer = next((name for name in _LIKELY_ANSWERS if name in known), None)
    if prompt is None:
        return "name the one with the problem, --prompt FIELD (and --answer FIELD for the expected answer)"
    return f"which is the problem? Perhaps --prompt {prompt}" + (f" --answer {answer}" if answer else "")
