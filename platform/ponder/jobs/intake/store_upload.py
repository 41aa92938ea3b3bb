"""Stores a file in Postgres in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from sqlalchemy import Connection, text

from ponder.domain.storable import clean
from ponder.errors import LimitReached

MAX_BYTES = 8 * 1024**3
CHUNK_BYTES = 1024 * 1024
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


def store_upload(
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
