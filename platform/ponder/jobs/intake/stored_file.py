"""A stored upload as a file: read in pieces, from any place, and any number of times."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Engine, text

from ponder.errors import NotFound
from ponder.store.retention import INPUT_EXPIRED_AT

_FIND = text(f"""
    SELECT filename, bytes FROM files
    WHERE id = :id AND tenant_id = :tenant_id AND kind = 'input' AND deleted_at IS NULL AND {INPUT_EXPIRED_AT} IS NULL
""")
_USES = text("""
    SELECT input_file_id, count(*) AS uses FROM batches
    WHERE input_file_id = ANY(:ids) AND tenant_id = :tenant_id GROUP BY input_file_id
""")
_CHUNK = text("SELECT data FROM file_chunks WHERE file_id = :id AND ordinal = :ordinal")
_BUFFER_BYTES = 64 * 1024


def num_uses(engine: Engine, tenant_id: str, file_ids: Sequence[str]) -> Mapping[str, int]:
    """Returns how many batches of the tenant were made of each file. Files that no batch uses are left out."""
    with engine.connect() as connection:
        rows = connection.execute(_USES, {"ids": list(file_ids), "tenant_id": tenant_id})
        return {row.input_file_id: row.uses for row in rows}


class StoredFile:
    """An upload of a tenant's. Its text is the name that the uploader gave it."""

    def __init__(self, engine: Engine, file_id: str, name: str, num_bytes: int) -> None:
        self.name = name
        self.num_bytes = num_bytes
        self._engine = engine
        self._file_id = file_id

    @classmethod
    def of(cls, engine: Engine, tenant_id: str, file_id: str) -> StoredFile:
        """Raises NotFound."""
        with engine.connect() as connection:
            row = connection.execute(_FIND, {"id": file_id, "tenant_id": tenant_id}).first()
        if row is None:
            raise NotFound(f"there is no input file {file_id}", param="input_file_id")
        return cls(engine, file_id, row.filename, row.bytes)

    def __str__(self) -> str:
        return self.name

    def open(self, mode: Literal["rb"] = "rb", /) -> io.BufferedReader:
        return io.BufferedReader(_Chunks(self._engine, self._file_id, self.num_bytes), _BUFFER_BYTES)


class _Chunks(io.RawIOBase):
    """The chunks of a file as one stream. All but the last have the same size. Holds one in memory."""

    def __init__(self, engine: Engine, file_id: str, num_bytes: int) -> None:
        self._engine = engine
        self._file_id = file_id
        self._num_bytes = num_bytes
        self._at = 0
        self._ordinal = -1
        self._data = b""
        self._size = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._num_bytes}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._num_bytes:
            return 0
        size = self._chunk_size()
        chunk = self._chunk(self._at // size)
        piece = chunk[self._at % size :][: len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _chunk_size(self) -> int:
        self._size = self._size or len(self._chunk(0)) or 1
        return self._size

    def _chunk(self, ordinal: int) -> bytes:
        if ordinal != self._ordinal:
            with self._engine.connect() as connection:
                data = connection.execute(_CHUNK, {"id": self._file_id, "ordinal": ordinal}).scalar()
            self._ordinal, self._data = ordinal, bytes(data or b"")
        return self._data
