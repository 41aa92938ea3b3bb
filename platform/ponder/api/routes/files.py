"""The routes of /v1/files. Input files are stored as uploaded. Output and error files are made from results."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, BinaryIO, Literal, cast

from fastapi import APIRouter, Query, Request
from sqlalchemy import Engine, Row, text
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import StreamingResponse

from ponder.api.auth import Caller, Tenant
from ponder.api.outcome import error_lines, output_lines
from ponder.api.page import After, LongLimit, check_cursor, page
from ponder.api.services import Ponder, Services, identifier, unix
from ponder.api.upload import received
from ponder.domain.storable import JsonObject
from ponder.errors import Conflict, NotFound
from ponder.jobs.intake.store_upload import check_room, store_upload
from ponder.store.retention import EXPIRED_AT, INPUT_EXPIRED_AT, RESULTS_EXPIRE_AT

router = APIRouter(prefix="/v1/files", tags=["files"])

_COLUMNS = f"""
    files.id, files.tenant_id, filename, purpose, kind, bytes, batch_id, files.created_at,
    {RESULTS_EXPIRE_AT} AS expires_at"""
_EXPIRED_AT = f"coalesce({EXPIRED_AT}, {INPUT_EXPIRED_AT})"
_FIND = text(f"""
    SELECT {_COLUMNS}, deleted_at, {_EXPIRED_AT} AS expired_at
    FROM files LEFT JOIN batches ON batches.id = batch_id
    WHERE files.id = :id AND files.tenant_id = :tenant_id
""")
_CURSOR = text("SELECT 1 FROM files WHERE id = :after AND tenant_id = :tenant_id")
"""A deleted file keeps its place in the list, so that one can list files while deleting them."""

_NEWEST = """
    SELECT {columns} FROM files LEFT JOIN batches ON batches.id = batch_id
    WHERE files.tenant_id = :tenant_id AND deleted_at IS NULL AND {expired_at} IS NULL
      AND (CAST(:purpose AS text) IS NULL OR purpose = :purpose)
      AND (CAST(:after AS text) IS NULL OR (files.created_at, files.id) {sign}
           (SELECT created_at, id FROM files WHERE id = :after AND tenant_id = :tenant_id))
    ORDER BY files.created_at {order}, files.id {order} LIMIT :limit
"""
_LISTS = {
    "desc": text(_NEWEST.format(columns=_COLUMNS, expired_at=_EXPIRED_AT, sign="<", order="DESC")),
    "asc": text(_NEWEST.format(columns=_COLUMNS, expired_at=_EXPIRED_AT, sign=">", order="ASC")),
}
_CHUNK = text("SELECT data FROM file_chunks WHERE file_id = :id AND ordinal = :ordinal")


@router.post("")
async def upload(request: Request, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Takes a multipart form with `purpose=batch` and `file`, which has one OpenAI batch line per line."""
    return await take_upload(request, ponder, caller)


async def take_upload(
    request: Request, ponder: Services, caller: Caller, file_of: Callable[[FormData], UploadFile] | None = None
) -> JsonObject:
    """Stores the file of a request's form, which `file_of` reads if it is another than that of `upload`."""
    file_id = f"file-{secrets.token_hex(12)}"
    most_stored = most_bytes(ponder, caller)
    announced = request.headers.get("Content-Length", "")

    def check() -> None:
        with ponder.engine.connect() as connection:
            check_room(connection, caller.tenant_id, int(announced) if announced.isdecimal() else 0, most_stored)

    def store(filename: str | None, file: BinaryIO) -> Mapping[str, Any]:
        with ponder.engine.begin() as connection:
            return store_upload(connection, caller.tenant_id, file_id, filename, file, most_stored=most_stored)

    with ponder.limits.uploads.one(caller.tenant_id, is_operator=caller.is_operator):
        await run_in_threadpool(check)  # early, so that nothing is received in vain
        async with received(request, file_of=file_of) as file:
            return _object(await run_in_threadpool(store, file.filename, file.file))


def most_bytes(ponder: Services, caller: Caller) -> int | None:
    """Returns how many bytes of uploads a tenant may have stored. None means no limit."""
    return None if caller.is_operator else ponder.settings.max_stored_bytes


@router.get("")
def list_files(
    ponder: Ponder,
    caller: Tenant,
    *,
    limit: LongLimit = 1_000,
    after: After = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=50, pattern="^[a-z_-]+$")] = None,
) -> JsonObject:
    """Lists files. A file made from results has 0 bytes here until it has been read once."""
    values = {
        "tenant_id": caller.tenant_id,
        "after": None if after is None else identifier(after, "file", "after"),
        "purpose": purpose,
        "limit": limit + 1,
    }
    with ponder.engine.connect() as connection:
        check_cursor(connection, _CURSOR, values)
        rows = connection.execute(_LISTS[order], values).all()
    return page([_object(dict(row._mapping)) for row in rows], limit)


@router.get("/{file_id}")
def get_file(file_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    return _object(_sized(ponder.engine, _find(ponder.engine, caller.tenant_id, file_id)))


@router.get("/{file_id}/content")
def get_content(file_id: str, ponder: Ponder, caller: Tenant) -> StreamingResponse:
    row = _find(ponder.engine, caller.tenant_id, file_id)
    headers = {"Content-Length": str(row.bytes)} if row.kind == "input" else {}
    headers["Content-Disposition"] = f'attachment; filename="{row.id}.jsonl"'
    return StreamingResponse(_content(ponder.engine, row), media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}")
def delete_file(file_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Deletes a file. The content of an input file is lost; results stay with their jobs."""
    values = {"id": identifier(file_id, "file"), "tenant_id": caller.tenant_id}
    with ponder.engine.begin() as connection:
        _present(connection.execute(text(f"{_FIND.text} FOR UPDATE OF files"), values).first(), file_id)
        waiting = connection.execute(
            text("SELECT id FROM batches WHERE input_file_id = :id AND state = 'validating' LIMIT 1"), values
        ).scalar()
        if waiting is not None:
            raise Conflict(f"{waiting} is being validated and needs the file")
        connection.execute(text("UPDATE files SET deleted_at = clock_timestamp() WHERE id = :id"), values)
        connection.execute(text("DELETE FROM file_chunks WHERE file_id = :id"), values)
    return {"id": file_id, "object": "file", "deleted": True}


def _find(engine: Engine, tenant_id: str, file_id: str) -> Row[Any]:
    with engine.connect() as connection:
        row = connection.execute(_FIND, {"id": identifier(file_id, "file"), "tenant_id": tenant_id}).first()
    return _present(row, file_id)


def _present(row: Row[Any] | None, file_id: str) -> Row[Any]:
    """Returns the file. Raises NotFound, as OpenAI does for a file that was there before."""
    if row is None:
        raise NotFound(f"there is no file {file_id}", param="file_id")
    if row.expired_at is not None:
        raise NotFound(f"{file_id} expired on {_moment(row.expired_at)} and was deleted", param="file_id")
    if row.deleted_at is not None:
        raise NotFound(f"{file_id} was deleted on {_moment(row.deleted_at)}", param="file_id")
    return row


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d at %H:%M:%S %Z}"


def _content(engine: Engine, row: Row[Any]) -> Iterator[bytes]:
    """Yields the content, each piece in its own transaction, so that a slow reader holds no connection."""
    if row.kind == "input":
        return _chunks(engine, row.id)
    lines = output_lines if row.kind == "output" else error_lines
    return _measured(engine, row, lines(engine, row.tenant_id, row.batch_id))


def _measured(engine: Engine, row: Row[Any], pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the same pieces, and stores the file's size at the end."""
    num_bytes = 0
    for piece in pieces:
        num_bytes += len(piece)
        yield piece
    if num_bytes != row.bytes:
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE files SET bytes = :bytes WHERE id = :id"), {"bytes": num_bytes, "id": row.id}
            )


def _chunks(engine: Engine, file_id: str) -> Iterator[bytes]:
    ordinal = 0
    while True:
        with engine.connect() as connection:
            data = connection.execute(_CHUNK, {"id": file_id, "ordinal": ordinal}).scalar()
        if data is None:
            return
        yield bytes(data)
        ordinal += 1


def _sized(engine: Engine, row: Row[Any]) -> Mapping[str, Any]:
    """Returns a file with its size. The size of a file made from results is counted when first asked for."""
    if row.kind == "input" or row.bytes:
        return dict(row._mapping)
    return {**row._mapping, "bytes": sum(len(piece) for piece in _content(engine, row))}


def _object(file: Mapping[str, Any]) -> JsonObject:
    """Returns OpenAI's file object."""
    return {
        "id": file["id"],
        "object": "file",
        "bytes": file["bytes"],
        "created_at": cast(int, unix(file["created_at"])),
        "expires_at": unix(file.get("expires_at")),
        "filename": file["filename"],
        "purpose": file["purpose"],
        "status": "processed",
        "status_details": None,
    }
