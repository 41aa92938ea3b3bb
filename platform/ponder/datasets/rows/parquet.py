"""Reads Parquet a few rows at a time, because a file of a few hundred bytes may hold gigabytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from typing import IO, Any

from ponder.datasets.rows.row import MAX_ROW, TOO_LONG, Row, Rows, without_nan
from ponder.errors import InvalidInput, SetupError
from ponder.remedy import pip_install
from ponder.wire import Json

_BATCH_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_MOST_ROWS = 1024
_FEW_ROWS = 16
_MOST_EXPANSION = 100
_BOMB_BYTES = 256 * 1024 * 1024
_MOST_VALUES = 100_000


def rows(file: BufferedIOBase | IO[bytes]) -> Rows:
    """Yields rows. Null keys of a struct are left out, because Arrow gives every struct all keys of its column."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SetupError(f"reading Parquet needs pyarrow: {pip_install('pyarrow')}") from error
    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        for index in range(table.metadata.num_row_groups):
            for batch in table.iter_batches(_rows_at_once(table.metadata.row_group(index), index), [index]):
                for values in _values(batch):
                    number += 1
                    trouble = TOO_LONG if values is None else ""
                    yield Row(number, f"row {number}", values, trouble)
    except pyarrow.ArrowException as error:
        raise InvalidInput(f"it is not Parquet, or damaged after row {number} ({error})") from error


@contextmanager
def unzipped(file: BufferedIOBase, num_compressed: int) -> Iterator[IO[bytes]]:
    """Yields the content as a temporary file, because Parquet is read from its end."""
    num_left = _BATCH_BYTES + _MOST_EXPANSION * num_compressed
    with tempfile.TemporaryFile() as spool:
        while piece := file.read(_PIECE_BYTES):
            num_left -= len(piece)
            if num_left < 0:
                raise InvalidInput(f"the .gz expands more than {_MOST_EXPANSION}-fold, as no Parquet does: gunzip it")
            spool.write(piece)
        yield spool


def _rows_at_once(group: Any, index: int) -> int:
    """Returns a number of rows whose decoded values stay small. No value exceeds its column's uncompressed pages."""
    columns = [group.column(number) for number in range(group.num_columns)]
    for column in columns:
        is_bomb = _expands(column) and column.total_uncompressed_size > _BOMB_BYTES
        if is_bomb or column.num_values > _MOST_VALUES * max(1, group.num_rows):
            raise InvalidInput(
                f"row group {index + 1}, column {column.path_in_schema}: {column.num_values:,} values of "
                f"{column.total_uncompressed_size:,} bytes are stored in {column.total_compressed_size:,}; at most "
                f"{_BOMB_BYTES // 1024 // 1024} MB may expand more than {_MOST_EXPANSION}-fold, and a row has at most "
                f"{_MOST_VALUES:,} values"
            )
    longest = max((column.total_uncompressed_size for column in columns), default=1)
    least = 1 if any(map(_expands, columns)) else _FEW_ROWS
    return int(max(least, min(_MOST_ROWS, _BATCH_BYTES // max(1, longest))))


def _expands(column: Any) -> bool:
    return bool(column.total_uncompressed_size > _MOST_EXPANSION * column.total_compressed_size)


def _values(batch: Any) -> Iterator[Json | None]:
    """Yields the rows of a batch, or None for a row that is too long."""
    if batch.nbytes <= MAX_ROW:
        yield from map(_present, batch.to_pylist())
        return
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        yield None if row.nbytes > MAX_ROW else _present(row.to_pylist()[0])


def _present(values: Json) -> Json:
    """Returns a row as plain values. Null columns stay, because they are the file's fields."""
    return {name: _plain(without_nan(value)) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, bytes):
        return _decoded(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _decoded(value: bytes) -> str | bytes:
    """Decodes bytes that are text, because some writers do not mark text as such."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
