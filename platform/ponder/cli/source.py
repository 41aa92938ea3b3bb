"""Rows out of the files that people have: JSONL, CSV and Parquet, each also as .gz."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ponder.errors import InvalidInput, SetupError

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_LONGEST_CELL = 2**31 - 1
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands; `values` is None where it could not be read, and `trouble` says why."""

    line: int
    values: Mapping[str, Any] | None
    raw: bytes = b""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that can be read as often as needed, always from its beginning, never all of it at once."""

    path: Path
    form: str
    is_compressed: bool

    @classmethod
    def of(cls, path: Path) -> Source:
        """Raises InvalidInput for a file that is not there or of no known kind."""
        if not path.is_file():
            raise InvalidInput(f"{path}: there is no such file")
        suffixes = [suffix.lower() for suffix in path.suffixes]
        is_compressed = suffixes[-1:] == [".gz"]
        form = _FORMATS.get("".join(suffixes[-2:-1] if is_compressed else suffixes[-1:]))
        if form is None:
            raise InvalidInput(
                f"{path}: cannot tell what it is by its name; known are {', '.join(_FORMATS)}, each also .gz"
            )
        return cls(path, form, is_compressed)

    def lines(self) -> Iterator[bytes]:
        """The lines as they are, each with its newline (but for, perhaps, the last)."""
        with self._open() as file:
            yield from file

    def rows(self) -> Iterator[Row]:
        """Every row; one that cannot be read is a Row with its trouble, and the others follow."""
        try:
            yield from {"jsonl": self._json, "csv": self._csv, "tsv": self._csv, "parquet": self._parquet}[self.form]()
        except (OSError, EOFError) as error:
            raise InvalidInput(f"{self.path}: cannot be read ({error})") from error

    def is_batch(self) -> bool:
        """Whether its first line is a line of an OpenAI batch file."""
        if self.form != "jsonl":
            return False
        first = next(self.rows(), None)
        return first is not None and first.values is not None and {"custom_id", "body"} <= first.values.keys()

    def fields(self) -> list[str]:
        """The names of the first row's fields."""
        first = next((row for row in self.rows() if row.values is not None), None)
        return list(first.values or ()) if first else []

    def _open(self) -> IO[bytes]:
        if self.is_compressed:
            return cast("IO[bytes]", gzip.open(self.path, "rb"))
        return self.path.open("rb")

    def _json(self) -> Iterator[Row]:
        for number, line in enumerate(self.lines(), start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, None, line, f"it is not JSON ({error})")
                continue
            if isinstance(values, dict):
                yield Row(number, values, line)
            else:
                yield Row(number, None, line, "it is not a JSON object")

    def _csv(self) -> Iterator[Row]:
        csv.field_size_limit(min(_LONGEST_CELL, sys.maxsize))
        with self._open() as file:
            # A byte that is not UTF-8 becomes a lone surrogate, which the server refuses for its row alone.
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.DictReader(text, dialect="excel-tab" if self.form == "tsv" else "excel")
            for values in reader:
                surplus = values.pop(None, None)
                trouble = "it has more cells than the header" if surplus else ""
                yield Row(reader.line_num, None if trouble else values, b"", trouble)

    def _parquet(self) -> Iterator[Row]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise SetupError(f"{self.path}: reading Parquet needs pyarrow: pip install 'ponder[parquet]'") from error
        with self._open() as file, tempfile.TemporaryFile() as spool:
            if self.is_compressed:  # Parquet is read from its end
                shutil.copyfileobj(file, spool)
            try:
                batches = pyarrow.parquet.ParquetFile(spool if self.is_compressed else file).iter_batches(_ROWS_AT_ONCE)
                rows = (values for batch in batches for values in batch.to_pylist())
                for number, values in enumerate(rows, start=1):
                    yield Row(number, values)
            except pyarrow.ArrowException as error:
                raise InvalidInput(f"{self.path}: is not Parquet ({error})") from error
