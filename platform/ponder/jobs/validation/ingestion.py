"""Turns lines into jobs or refusals, and streams both into Postgres by COPY."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from pydantic_core import to_json
from sqlalchemy import Connection

from ponder.domain.batch.line import decode
from ponder.domain.batch.request import JobRequest, Terms, parse, refuse_told
from ponder.domain.budget import most_tokens
from ponder.domain.forecast.experience import Experience
from ponder.domain.state import Lane
from ponder.domain.storable import JsonObject, clean
from ponder.errors import InvalidInput, InvalidLine
from ponder.jobs.estimating.sizer import Sizer
from ponder.jobs.estimating.survey import Survey

_SPECIAL = re.compile(r"[\\\t\n\r]")
_PIECE_BYTES = 256 * 1024
_SHOWN = 200
"""The longest message or field path of a refused line, in characters."""
_SPOOL_BYTES = 4 * 1024 * 1024
_COPY_JOBS = (
    "COPY jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy, level, oracle, "
    "judged, estimated_tokens) FROM STDIN"
)
_COPY_REJECTED = "COPY rejected_lines (batch_id, line, custom_id, code, param, message) FROM STDIN"


class Ingestion:
    """The ingestion of the lines of one batch. Needs about a hundred bytes per line, to remember custom ids."""

    def __init__(
        self,
        tenant_id: str,
        batch_id: str,
        terms: Terms,
        line: Callable[[], AbstractContextManager[None]] = nullcontext,
        sizer: Sizer | None = None,
    ) -> None:
        """Prepares to read each line inside the context manager that `line` returns, which may raise InvalidInput.

        `sizer` estimates the tokens of jobs, by default without any experience.
        """
        self.terms = terms
        self.num_lines = 0
        self.num_rejected = 0
        self.num_readable = 0
        self.is_interactive = False
        self.survey = Survey()
        self.least_tokens: dict[str, int] = {}
        """The most tokens that the smallest job of each model may generate."""
        self._tenant_id = tenant_id
        self._batch_id = batch_id
        self._line = line
        self._sizer = sizer or Sizer(Experience({}))
        self._seen: dict[str, int] = {}

    def copy(self, connection: Connection, lines: Iterable[tuple[int, bytes | None]]) -> None:
        """Writes all lines. Postgres stores rows while the next ones are made.

        `lines` must not use the same connection. After an error the connection is invalid.
        """
        cursor = connection.connection.cursor()
        try:
            with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as refusals:
                cursor.execute(_COPY_JOBS, stream=_pieces(self._jobs(lines, refusals)))  # type: ignore[call-arg]
                refusals.seek(0)
                cursor.execute(_COPY_REJECTED, stream=_pieces(refusals))  # type: ignore[call-arg]
        except BaseException:
            connection.invalidate()
            raise

    def refusals(self, lines: Iterable[tuple[int, bytes | None]]) -> Iterator[InvalidLine]:
        """Yields what `copy` would refuse of these lines. Writes nothing."""
        for number, line in lines:
            self.num_lines += 1
            try:
                self._read(number, line)
            except InvalidLine as error:
                self.num_rejected += 1
                yield error

    def _jobs(
        self, lines: Iterable[tuple[int, bytes | None]], refusals: tempfile.SpooledTemporaryFile[bytes]
    ) -> Iterator[bytes]:
        """Yields the rows of admitted lines. Refusals are put aside, because only one COPY can run at a time."""
        for number, line in lines:
            self.num_lines += 1
            try:
                row = self._read(number, line)
            except InvalidLine as error:
                self.num_rejected += 1
                refusals.write(self._refusal(error))
            else:
                yield row

    def _read(self, number: int, line: bytes | None) -> bytes:
        value: JsonObject = {}
        try:
            with self._line():
                value = decode(line, number)
                self.num_readable += 1
                refuse_told(value, number)
                self._refuse_duplicate(value.get("custom_id"), number)
                return self._job(number, parse(value, number, self.terms))
        except InvalidLine:
            raise
        except InvalidInput as error:
            custom_id = value.get("custom_id")
            raise InvalidLine(
                error.message,
                line=number,
                code=error.code,
                custom_id=custom_id if isinstance(custom_id, str) else None,
            ) from None

    def _refuse_duplicate(self, custom_id: object, number: int) -> None:
        if not isinstance(custom_id, str):
            return
        first = self._seen.setdefault(custom_id, number)
        if first != number:
            raise InvalidLine(
                f"the custom_id was already used in line {first}",
                line=number,
                code="duplicate_custom_id",
                param="custom_id",
                custom_id=custom_id,
            )

    def _job(self, number: int, request: JobRequest) -> bytes:
        model = request.model
        size = self._sizer.size(request)
        self.survey.add(size, request)
        tokens = min(self._sizer.tokens(size), 2**31 - 1)
        most = most_tokens(request.document, model.context_length)
        self.least_tokens[model.name] = min(self.least_tokens.get(model.name, most), most)
        self.is_interactive = self.is_interactive or request.priority is Lane.INTERACTIVE
        # Of all that COPY escapes, JSON text can only contain backslashes.
        document = to_json(request.document).replace(b"\\", b"\\\\")
        before = _row((self._tenant_id, self._batch_id, str(number), request.custom_id, model.name, model.fingerprint))
        flags = ("t" if flag else "f" for flag in (request.oracle, request.judged))
        after = _row((request.strategy, request.level, *flags, str(tokens)))
        return b"%b\t%b\t%b\n" % (before, document, after)

    def _refusal(self, error: InvalidLine) -> bytes:
        custom_id = None if error.custom_id is None else clean(error.custom_id[:512])
        param = None if error.param is None else short(error.param)
        fields = (self._batch_id, str(error.line), custom_id, error.code, param, short(error.message))
        return _row(fields) + b"\n"


def short(said: str) -> str:
    """Cuts a message: a file may have a million refused lines, and messages may quote them."""
    return clean(said if len(said) <= _SHOWN else f"{said[: _SHOWN - 1]}…")


def _pieces(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Joins rows into larger pieces, because each piece becomes a message of its own."""
    piece = bytearray()
    for row in rows:
        piece += row
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _row(fields: Sequence[str | None]) -> bytes:
    """Encodes fields in COPY's text format, without a line end."""
    if _SPECIAL.search("".join([field for field in fields if field is not None])) is None:
        return "\t".join(["\\N" if field is None else field for field in fields]).encode()
    return "\t".join(["\\N" if field is None else _escape(field) for field in fields]).encode()


def _escape(field: str) -> str:
    return field.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
