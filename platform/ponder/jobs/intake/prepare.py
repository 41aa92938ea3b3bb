"""Makes the batch file of an upload, if it is not one yet, and checks its first lines, in a process of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import IO, Any

from sqlalchemy import Connection, Engine, text

from ponder.datasets.dataset import Dataset, Fields
from ponder.datasets.source import Source
from ponder.datasets.surface import Surface
from ponder.domain.batch.line import split
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.request import Terms
from ponder.domain.batch.submission import Submission
from ponder.domain.storable import JsonObject, clean
from ponder.errors import InvalidInput, InvalidLine
from ponder.jobs.intake.store_upload import CHUNK_BYTES, MAX_BYTES, check_room, store_upload
from ponder.jobs.intake.stored_file import StoredFile
from ponder.jobs.served import served_models
from ponder.jobs.validation.calibrate import calibrate
from ponder.jobs.validation.check_limits import CheckLimits, LineClock
from ponder.jobs.validation.ingestion import Ingestion, short
from ponder.jobs.validation.limited_answer import answering, ask
from ponder.settings import Settings
from ponder.store.database import connect, url_of

_PATIENCE_S = 600.0
_NUM_CHECKED = 200
_MOST_TOLD = 20
_EXISTS = text("SELECT 1 FROM files WHERE id = :id AND tenant_id = :tenant_id AND deleted_at IS NULL")
_WAIT_LONG = text("SET lock_timeout = 0")
_LOCK = text("SELECT pg_advisory_lock(hashtextextended(:id, 0))")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of an upload become batch lines. `body` overrides what lines say."""

    fields: Fields
    body: JsonObject
    system: str | None = None
    encoding: str | None = None


def prepare(
    engine: Engine,
    tenant_id: str,
    submission: Submission,
    settings: Settings,
    *,
    reading: Reading | None,
    new_file_id: str,
    surface: Surface,
    most_stored: int | None,
    most_made: int = MAX_BYTES,
) -> JsonObject:
    """Returns the batch file, and what the validator would refuse of its first lines.

    The submission's input file is the upload. With a `reading` it is turned into another one, `new_file_id`, unless
    that is already there. Errors name settings as `surface` does. Raises NotFound for an unknown upload, LimitReached
    as `check_room` does, and InvalidInput if it does not match the reading or makes a file of more than `most_made`
    bytes.
    """
    is_made = reading is None or _is_there(engine, tenant_id, new_file_id)
    file_id = submission.input_file_id
    upload = None if reading is not None and is_made else StoredFile.of(engine, tenant_id, file_id)
    asked = {
        "database_url": url_of(engine),
        "tenant_id": tenant_id,
        "upload": upload and {"id": file_id, "name": upload.name, "bytes": upload.num_bytes},
        "reading": None if is_made or reading is None else asdict(reading),
        "file_id": file_id if reading is None else new_file_id,
        "endpoint": submission.endpoint,
        "options": submission.ponder.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "surface": asdict(surface),
        "most_stored": most_stored,
        "most_made": most_made,
        "allows_code": settings.allow_code,
        "limits": asdict(CheckLimits.of(settings)),
    }
    return ask(answer_preparation, asked, patience_s=_PATIENCE_S, what="reading the file")


def _is_there(engine: Engine, tenant_id: str, file_id: str) -> bool:
    with engine.connect() as connection:
        return connection.execute(_EXISTS, {"id": file_id, "tenant_id": tenant_id}).first() is not None


def answer_preparation(request: bytes) -> bytes:
    """Runs in the other process."""
    asked = json.loads(request)
    return answering(lambda: _prepared(asked))


def _prepared(asked: Mapping[str, Any]) -> JsonObject:
    engine = connect(asked["database_url"], pool_size=3)
    num_rows = num_refused = None
    if asked["reading"] is not None:
        # The same form may be sent twice. The lock ends with this process.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(_WAIT_LONG)
            connection.execute(_LOCK, {"id": asked["file_id"]})
            if not _is_there(engine, asked["tenant_id"], asked["file_id"]):
                num_rows, num_refused = _convert(engine, asked)
    return {
        "file_id": asked["file_id"],
        "num_rows": num_rows,
        "num_refused": num_refused,
        **_checked(engine, asked),
    }


def _convert(engine: Engine, asked: Mapping[str, Any]) -> tuple[int, int]:
    """Stores the batch file of a data set. Returns the numbers of rows, and of those that cannot become a request."""
    reading, upload = asked["reading"], asked["upload"]
    file = StoredFile(engine, upload["id"], upload["name"], upload["bytes"])
    source = Source.of(file, reading["encoding"], Surface(**asked["surface"]))
    dataset = Dataset(source, Fields(**reading["fields"]), reading["body"], reading["system"], asked["endpoint"])
    dataset.check()
    stem = upload["name"].removesuffix(".gz").rpartition(".")[0] or upload["name"]
    with tempfile.TemporaryFile() as written:
        num_bytes = _write(dataset, written, asked["most_made"])
        written.seek(0)
        with engine.begin() as connection:
            check_room(connection, asked["tenant_id"], num_bytes, asked["most_stored"])  # before all of it is stored
            store_upload(
                connection,
                asked["tenant_id"],
                asked["file_id"],
                f"{stem}.jsonl",
                written,
                most_stored=asked["most_stored"],
            )
    return dataset.count.num_rows, dataset.count.num_refused


def _write(dataset: Dataset, file: IO[bytes], most_bytes: int) -> int:
    """Returns the number of bytes written."""
    num_bytes = 0
    for line in dataset.lines():
        num_bytes += len(line)
        if num_bytes > most_bytes:
            reason = f"it makes a batch file of more than {most_bytes} bytes: divide it"
            raise InvalidInput(reason, code="file_too_large")
        file.write(line)
    return num_bytes


def _checked(engine: Engine, asked: Mapping[str, Any]) -> JsonObject:
    """Returns how many lines were checked, and the first refusals, in the words of the validator."""
    options = BatchOptions.model_validate_json(json.dumps(asked["options"]))
    limits = CheckLimits.from_document(asked["limits"])
    with engine.connect() as connection:
        calibrations = calibrate(connection, asked["tenant_id"], options)
        models = served_models(connection)
        terms = Terms(options, models, asked["endpoint"], asked["allows_code"], limits.verifier, calibrations)
        ingestion = Ingestion(asked["tenant_id"], "", terms, LineClock(limits).line)
        lines = islice(split(_chunks(connection, asked["file_id"])), _NUM_CHECKED)
        refusals = [_refusal(error) for error in ingestion.refusals(lines)]
    return {
        "num_checked": ingestion.num_lines,
        "num_wrong": ingestion.num_rejected,
        "is_all": ingestion.num_lines < _NUM_CHECKED,
        "refusals": refusals[:_MOST_TOLD],
    }


def _refusal(error: InvalidLine) -> JsonObject:
    return {
        "line": error.line,
        "custom_id": None if error.custom_id is None else clean(error.custom_id),
        "param": None if error.param is None else short(error.param),
        "code": error.code,
        "message": short(error.message),
    }


def _chunks(connection: Connection, file_id: str) -> Iterator[bytes]:
    with StoredFile(connection.engine, file_id, "", MAX_BYTES).open() as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
