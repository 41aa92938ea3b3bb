"""Receives uploads: spools them to disk, then stores them in Postgres in pieces, with a few megabytes of memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

from sqlalchemy import Connection, text
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ponder.api.error_answers import TooLarge
from ponder.domain.storable import clean
from ponder.errors import InvalidInput, LimitReached, Unreachable

MAX_BYTES = 8 * 1024**3
CHUNK_BYTES = 1024 * 1024
_FIELDS = {"file", "purpose"}
_INSERT_FILE = text(
    """
    INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)
    VALUES (:id, :tenant_id, :filename, 'batch', 'input', 0) RETURNING created_at
    """
)
_INSERT_CHUNK = text("INSERT INTO file_chunks (file_id, ordinal, data) VALUES (:id, :ordinal, :data)")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('files of ' || :tenant_id, 0))")
_STORED = text(
    """
    SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant_id = :tenant_id AND kind = 'input' AND deleted_at IS NULL
    """
)
_SET_BYTES = text("UPDATE files SET bytes = :bytes WHERE id = :id")


@asynccontextmanager
async def received(request: Request, max_bytes: int = MAX_BYTES) -> AsyncIterator[UploadFile]:
    """Yields the uploaded file, which is on disk from its second megabyte on. Raises InvalidInput for other forms."""
    try:
        form = await _parse(request, max_bytes)
    except OSError as error:
        raise Unreachable(f"the upload could not be kept in {tempfile.gettempdir()}: {error.strerror}") from error
    try:
        yield _file_of(form)
    finally:
        await form.close()


async def _parse(request: Request, max_bytes: int) -> FormData:
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise InvalidInput("an upload must be multipart/form-data with the fields file and purpose", param="file")
    try:
        return await MultiPartParser(request.headers, _limited(request, max_bytes), max_files=1, max_fields=10).parse()
    except ClientDisconnect:
        raise _unreadable("it ended too early") from None
    except MultiPartException as error:
        raise _unreadable(error.message) from None
    except (ValueError, LookupError):  # the form names an unknown encoding, or is not in that encoding
        raise _unreadable("its parts are not encoded as its headers say") from None


def _unreadable(reason: str) -> InvalidInput:
    return InvalidInput(f"the upload cannot be read: {reason}", param="file")


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    num_bytes = 0
    async for piece in request.stream():
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise TooLarge(f"an upload may have at most {max_bytes} bytes", param="file", code="file_too_large")
        yield piece


def _file_of(form: FormData) -> UploadFile:
    for name in form:
        if name not in _FIELDS:
            raise InvalidInput(f"{name} is not supported", param=name.partition("[")[0], code="unsupported_field")
    if form.get("purpose") != "batch":
        raise InvalidInput("purpose must be batch", param="purpose", code="invalid_value")
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise InvalidInput("file is missing", param="file", code="missing_required_parameter")
    return file


def check_room(connection: Connection, tenant_id: str, num_bytes: int, most_stored: int | None) -> None:
    """Raises LimitReached if `num_bytes` more would exceed a tenant's stored bytes. None means no limit."""
    if most_stored is None:
        return
    if connection.execute(_STORED, {"tenant_id": tenant_id}).scalar_one() + num_bytes > most_stored:
        raise LimitReached(
            f"your files would take more than {most_stored} bytes: delete some that you no longer need "
            "(PONDER_MAX_STORED_BYTES)",
            code="storage_limit_exceeded",
            retry_after_s=60,
            is_passing=False,
        )


def keep(
    connection: Connection,
    tenant_id: str,
    file_id: str,
    filename: str | None,
    file: BinaryIO,
    *,
    most_stored: int | None = None,
) -> Mapping[str, Any]:
    """Writes a file in chunks. Returns its id, name, size and time. Raises LimitReached as `check_room` does."""
    name = clean(filename or "")[:255] or "upload.jsonl"
    created_at = connection.execute(
        _INSERT_FILE, {"id": file_id, "tenant_id": tenant_id, "filename": name}
    ).scalar_one()
    num_bytes = ordinal = 0
    while chunk := file.read(CHUNK_BYTES):
        connection.execute(_INSERT_CHUNK, {"id": file_id, "ordinal": ordinal, "data": chunk})
        num_bytes += len(chunk)
        ordinal += 1
    # Locked late, because the tenant's other uploads wait until the commit. The file's own bytes are not stored yet.
    connection.execute(_LOCK, {"tenant_id": tenant_id})
    check_room(connection, tenant_id, num_bytes, most_stored)
    connection.execute(_SET_BYTES, {"id": file_id, "bytes": num_bytes})
    return {"id": file_id, "filename": name, "bytes": num_bytes, "created_at": created_at, "purpose": "batch"}
