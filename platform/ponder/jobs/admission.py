"""Lines become jobs or refusals, in bunches of a few thousand by COPY."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection

from ponder.domain.line import decode
from ponder.domain.request import JobRequest, Terms, parse
from ponder.domain.state import Lane
from ponder.domain.storable import clean
from ponder.errors import InvalidLine
from ponder.jobs.estimate import estimate_tokens

_BUNCH_BYTES = 2 * 1024 * 1024
_JOBS = "jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy, level, estimated_tokens)"
_REJECTED = "rejected_lines (batch_id, line, custom_id, code, param, message)"


class Admission:
    """Of one batch; needs about a hundred bytes a line for the custom ids it has seen."""

    def __init__(self, connection: Connection, tenant_id: str, batch_id: str, terms: Terms) -> None:
        self.num_lines = 0
        self.num_rejected = 0
        self.num_readable = 0
        self.is_interactive = False
        self._tenant_id = tenant_id
        self._batch_id = batch_id
        self._terms = terms
        self._seen: dict[str, int] = {}
        self._jobs = _Bunch(connection, _JOBS)
        self._rejected = _Bunch(connection, _REJECTED)

    def take(self, number: int, line: bytes | None) -> None:
        """None is a line that is too long."""
        self.num_lines += 1
        try:
            value = decode(line, number)
            self.num_readable += 1
            self._refuse_duplicate(value.get("custom_id"), number)
            request = parse(value, number, self._terms)
            self._admit(number, request)
        except InvalidLine as error:
            self._reject(error)

    def flush(self) -> None:
        self._jobs.flush()
        self._rejected.flush()

    def _refuse_duplicate(self, custom_id: object, number: int) -> None:
        if not isinstance(custom_id, str):
            return
        first = self._seen.setdefault(custom_id, number)
        if first != number:
            raise InvalidLine(
                f"the custom_id was used in line {first} already",
                line=number,
                code="duplicate_custom_id",
                param="custom_id",
                custom_id=custom_id,
            )

    def _admit(self, number: int, request: JobRequest) -> None:
        try:
            document = json.dumps(request.document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        except ValueError:
            raise InvalidLine(
                "a number is too large", line=number, code="invalid_number", param="body", custom_id=request.custom_id
            ) from None
        model = request.model
        tokens = min(estimate_tokens(request.document, model.context_length), 2**31 - 1)
        pinned = (self._tenant_id, self._batch_id, str(number), request.custom_id, model.name, model.fingerprint)
        self._jobs.add((*pinned, document, request.strategy, request.level, str(tokens)))
        self.is_interactive = self.is_interactive or request.priority is Lane.INTERACTIVE

    def _reject(self, error: InvalidLine) -> None:
        self.num_rejected += 1
        custom_id = None if error.custom_id is None else clean(error.custom_id[:512])
        param = None if error.param is None else clean(error.param[:500])
        self._rejected.add(
            (self._batch_id, str(error.line), custom_id, error.code, param, clean(error.message[:1_000]))
        )


class _Bunch:
    """Rows for one table, copied when there are enough of them."""

    def __init__(self, connection: Connection, table: str) -> None:
        self._cursor = connection.connection.cursor()
        self._statement = f"COPY {table} FROM STDIN"
        self._rows: list[bytes] = []
        self._num_bytes = 0

    def add(self, fields: Sequence[str | None]) -> None:
        row = ("\t".join("\\N" if field is None else _escape(field) for field in fields) + "\n").encode()
        self._rows.append(row)
        self._num_bytes += len(row)
        if self._num_bytes >= _BUNCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._cursor.execute(self._statement, stream=[b"".join(self._rows)])  # type: ignore[call-arg]
            self._rows, self._num_bytes = [], 0


def _escape(field: str) -> str:
    """For COPY's text format."""
    return field.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
