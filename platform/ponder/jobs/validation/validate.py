"""Turns an input file into jobs: streamed, in one transaction, and a bad line never stops the others."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pg8000.exceptions
from sqlalchemy import Connection, Engine, Row, text

from ponder.domain.batch.line import split
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.request import Terms
from ponder.domain.state import BatchState, Lane
from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import InvalidInput
from ponder.jobs.estimating.observe import observed
from ponder.jobs.estimating.sizer import Sizer
from ponder.jobs.estimating.survey import store_survey
from ponder.jobs.piloting.draw import draw
from ponder.jobs.served import served_models
from ponder.jobs.shard import add_portions
from ponder.jobs.tally import tally_lines
from ponder.jobs.validation.calibrate import calibrate
from ponder.jobs.validation.ingestion import Ingestion
from ponder.jobs.wake import wake
from ponder.jobs.webhooks.announce import announce

_OPEN = text(
    """
    SELECT id, tenant_id, input_file_id, endpoint, options, lane FROM batches
    WHERE id = :id AND state = 'validating' AND pg_try_advisory_xact_lock(hashtextextended(:id, 0))
    """
)
_TAKES_LONG = text("SET LOCAL statement_timeout = 0")
_CHUNK = text("SELECT data FROM file_chunks WHERE file_id = :id AND ordinal = :ordinal")
_BEGIN_PROGRESS = text(
    """
    UPDATE batches SET state = 'in_progress', in_progress_at = clock_timestamp(), num_lines = :num_lines, lane = :lane
    WHERE id = :id AND state = 'validating'
    """
)
_FAIL = text(
    """
    UPDATE batches SET state = 'failed', failed_at = clock_timestamp(), num_lines = :num_lines,
                       errors = CAST(:errors AS jsonb), error_file_id = :error_file_id
    WHERE id = :id AND state = 'validating'
    """
)
_LIMITS = VerifierLimits()
_DATA_ERRORS = ("21", "22", "23", "54")
"""Classes of SQLSTATE which mean that the rows are wrong, not that the server is away."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """The reason why the whole batch failed."""

    code: str
    message: str

    def as_json(self) -> str:
        return json.dumps([{"code": self.code, "line": None, "message": self.message, "param": None}])


class _Overtaken(Exception):
    """The batch was cancelled or has expired meanwhile, so this validation is rolled back."""


def validate(
    engine: Engine,
    batch_id: str,
    *,
    allows_code: bool = False,
    limits: VerifierLimits = _LIMITS,
    line: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Makes the jobs of a batch and begins it. A second call, or one for a batch in another state, does nothing.

    The batch fails as a whole if it is strict and a line is refused, or if no line of the file can be read.
    `allows_code` lets lines use the verifier python_tests, which runs answers. `limits` bound their patterns and
    schemas. Each line is read inside the context manager that `line` returns, which may raise InvalidInput, as
    LineClock does. No lock is held meanwhile, so the batch can be cancelled at once.
    """
    try:
        with engine.begin() as connection:
            batch = connection.execute(_OPEN, {"id": batch_id}).first()
            if batch is not None:
                connection.execute(_TAKES_LONG)
                with engine.connect() as pooled:
                    # Outside a transaction, because between two chunks it is idle for as long as their lines take.
                    reader = pooled.execution_options(isolation_level="AUTOCOMMIT")
                    lines = split(_chunks(reader, batch.input_file_id))
                    options = BatchOptions.model_validate_json(json.dumps(batch.options))
                    calibrations = calibrate(connection, batch.tenant_id, options)
                    terms = Terms(options, served_models(connection), batch.endpoint, allows_code, limits, calibrations)
                    fingerprints = [model.fingerprint for model in terms.models.values()]
                    sizer = Sizer(observed(connection, batch.tenant_id, fingerprints))
                    _validate(connection, batch, lines, Ingestion(batch.tenant_id, batch.id, terms, line, sizer))
    except _Overtaken:
        return
    except InvalidInput as error:  # of the options; those of lines are refused one by one
        with engine.begin() as connection:
            _fail(connection, batch_id, _Failure(error.code, error.message), num_lines=0, error_file_id=None)
    except pg8000.exceptions.DatabaseError as error:
        reason = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        if not str(reason.get("C", "")).startswith(_DATA_ERRORS):
            raise
        # Every retry would end the same way.
        failure = _Failure("unstorable", f"the database refused the batch's rows (SQLSTATE {reason['C']})")
        with engine.begin() as connection:
            _fail(connection, batch_id, failure, num_lines=0, error_file_id=None)


def _validate(
    connection: Connection, batch: Row[Any], lines: Iterator[tuple[int, bytes | None]], ingestion: Ingestion
) -> None:
    ingestion.copy(connection, lines)
    options = ingestion.terms.options
    failure = _failure(ingestion, options)
    if failure is not None:
        connection.execute(text("DELETE FROM jobs WHERE batch_id = :id"), {"id": batch.id})
        tally_lines(connection, batch.id)
        error_file_id = _error_file(connection, batch) if ingestion.num_rejected else None
        _fail(connection, batch.id, failure, num_lines=ingestion.num_lines, error_file_id=error_file_id)
        return
    add_portions(connection, batch.id, ingestion.least_tokens)
    num_lines, num_refused = ingestion.num_lines, ingestion.num_rejected
    survey = replace(ingestion.survey, num_lines=num_lines, num_read=num_lines, num_refused=num_refused)
    store_survey(connection, batch.id, survey)
    lane = options.priority or (Lane.INTERACTIVE if ingestion.is_interactive else Lane.BATCH)
    if options.pilot is not None:
        draw(connection, batch.id, options.pilot, lane=lane)
    begun = connection.execute(_BEGIN_PROGRESS, {"id": batch.id, "num_lines": ingestion.num_lines, "lane": lane})
    if begun.rowcount == 0:
        raise _Overtaken
    wake(connection)


def _chunks(connection: Connection, file_id: str) -> Iterator[bytes]:
    """Yields chunks with one statement each, because the driver holds all rows of a statement in memory."""
    ordinal = 0
    while (data := connection.execute(_CHUNK, {"id": file_id, "ordinal": ordinal}).scalar()) is not None:
        yield bytes(data)
        ordinal += 1


def _failure(ingestion: Ingestion, options: BatchOptions) -> _Failure | None:
    if ingestion.num_lines == 0:
        return _Failure("empty_file", "the input file has no lines")
    if ingestion.num_readable == 0:
        return _Failure("invalid_file", "no line of the input file is JSON: one object per line is expected")
    if options.strict and ingestion.num_rejected:
        refused = f"{ingestion.num_rejected} of {ingestion.num_lines} lines"
        return _Failure("strict", f"{refused} were refused, and the batch is strict")
    return None


def _fail(
    connection: Connection, batch_id: str, failure: _Failure, *, num_lines: int, error_file_id: str | None
) -> None:
    failed = connection.execute(
        _FAIL,
        {"id": batch_id, "num_lines": num_lines, "errors": failure.as_json(), "error_file_id": error_file_id},
    )
    if failed.rowcount == 0:
        raise _Overtaken
    announce(connection, BatchState.FAILED, [batch_id])


def _error_file(connection: Connection, batch: Row[Any]) -> str:
    file_id = f"file-{secrets.token_hex(12)}"
    connection.execute(
        text(
            "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes, batch_id) "
            "VALUES (:id, :tenant_id, :filename, 'batch_output', 'errors', 0, :batch_id)"
        ),
        {"id": file_id, "tenant_id": batch.tenant_id, "filename": f"{batch.id}_errors.jsonl", "batch_id": batch.id},
    )
    return file_id
