"""Reads users' files as rows: JSON, CSV and Parquet, each also as .gz."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath
from typing import IO, Literal, Protocol, TextIO, cast

from ponder.datasets.rows import delimited, json_text, parquet
from ponder.datasets.rows.encoding import check_utf8
from ponder.datasets.rows.row import SPACE, Rows
from ponder.datasets.surface import OPTIONS, Surface
from ponder.domain.batch.endpoint import ENDPOINTS, Endpoint
from ponder.errors import InvalidInput

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_READERS: dict[str, Callable[[TextIO], Rows]] = {
    "jsonl": json_text.line_rows,
    "json": json_text.array_rows,
    "csv": lambda text: delimited.rows(text, "excel"),
    "tsv": lambda text: delimited.rows(text, "excel-tab"),
}
_SAMPLE_BYTES = 256 * 1024
_SAMPLE_ROWS = 100
_PIECE_BYTES = 8 * 1024
_BROKEN = (OSError, EOFError, zlib.error, UnicodeError)


class Content(Protocol):
    """A file with a name, such as a Path. As text it is what messages call it."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"], /) -> io.BufferedIOBase: ...


@dataclass(frozen=True, slots=True)
class Form:
    """The format of a file, as its name shows it."""

    name: str
    is_compressed: bool

    @classmethod
    def of(cls, file: Content | str) -> Form:
        """Reads the name of a file. Raises InvalidInput for an unknown kind."""
        suffixes = [suffix.lower() for suffix in PurePath(file if isinstance(file, str) else file.name).suffixes]
        is_compressed = suffixes[-1:] == [".gz"]
        name = FORMATS.get("".join(suffixes[-2:-1] if is_compressed else suffixes[-1:]))
        if name is None:
            raise InvalidInput(
                f"{file}: its name does not show its format; supported are {', '.join(FORMATS)}, each also .gz"
            )
        return cls(name, is_compressed)


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The facts that the first rows of a file reveal."""

    is_batch: bool
    fields: Sequence[str]
    trouble: str
    url: str | None


@dataclass(frozen=True)
class Source:
    """A file that can be read any number of times, always from its beginning, and never all at once."""

    file: Content
    form: str
    is_compressed: bool
    encoding: str = "utf-8-sig"
    surface: Surface = OPTIONS

    @classmethod
    def of(cls, file: Content, encoding: str | None = None, surface: Surface = OPTIONS) -> Source:
        """Opens a source, whose errors name settings as `surface` does.

        Raises InvalidInput for a missing file, an unknown kind, or the wrong encoding.
        """
        if isinstance(file, Path) and not file.is_file():
            raise InvalidInput(f"{file}: there is no such file")
        form = Form.of(file)
        made = cls(file, form.name, form.is_compressed, surface=surface)
        if form.name == "parquet":
            if encoding is not None:
                raise InvalidInput(f"{file}: Parquet has no text encoding: leave out {surface.encoding}")
            return made
        sample = made._sample()
        made = replace(made, encoding=_with_mark(encoding, sample))
        if encoding is None:
            with made._translated(lambda: 0):
                check_utf8(sample, surface)
        is_array = form.name == "json" and sample.decode(made.encoding, "replace").lstrip(SPACE)[:1] == "["
        return made if is_array or form.name != "json" else replace(made, form="jsonl")

    def rows(self) -> Rows:
        """Yields every row. A row that cannot be read says why, and the others follow.

        Raises InvalidInput after the last whole row if the file breaks off.
        """
        num_rows = 0
        with self._translated(lambda: num_rows), ExitStack() as stack:
            file = stack.enter_context(self._open())
            if self.form == "parquet":
                unzipped = parquet.unzipped(file, self._num_bytes())
                rows = parquet.rows(stack.enter_context(unzipped) if self.is_compressed else file)
            else:
                rows = _READERS[self.form](self._text(file))
            for row in stack.enter_context(closing(rows)):
                num_rows += 1
                yield row

    def is_batch(self) -> bool:
        """Returns whether at least half of the first readable rows are lines of an OpenAI batch file."""
        return self.form in ("json", "jsonl") and self._beginning.is_batch

    def endpoint(self) -> Endpoint | None:
        """Returns the endpoint that the first batch line names, if it is one of ours."""
        return next((known for known in ENDPOINTS if known == self._beginning.url), None) if self.is_batch() else None

    def is_plain(self) -> bool:
        """Returns whether the file's bytes are UTF-8 text, a row on each line."""
        return self.form == "jsonl" and not self.is_compressed and self.encoding == "utf-8-sig"

    def fields(self) -> Sequence[str]:
        """Returns the names of the fields in the first rows."""
        return self._beginning.fields

    def first_trouble(self) -> str:
        """Returns why the first unreadable row cannot be read."""
        return self._beginning.trouble or "it has no rows"

    def has(self, field: str) -> bool:
        """Returns whether any row has the field, reading until one does."""
        with closing(self.rows()) as rows:
            return any(field in (row.values or ()) for row in rows)

    @cached_property
    def _beginning(self) -> _Beginning:
        """The file's beginning, read one row at a time, because a hundred of the longest rows would fill the memory."""
        votes: list[bool] = []
        fields: dict[str, None] = {}
        trouble, url = "", None
        with closing(self.rows()) as rows:
            for row in islice(rows, _SAMPLE_ROWS):
                trouble = trouble or (f"{row.place}: {row.trouble}" if row.trouble else "")
                if row.values is not None:
                    votes.append({"custom_id", "body"} <= row.values.keys())
                    fields |= dict.fromkeys(row.values)
                    url = url or str(row.values.get("url") or "")
        return _Beginning(0 < len(votes) <= 2 * sum(votes), tuple(fields), trouble, url)

    def _sample(self) -> bytes:
        """Returns the first bytes of the file. Reading its rows later reports where it breaks off."""
        sample = bytearray()
        with suppress(*_BROKEN), self._open() as file:
            while len(sample) < _SAMPLE_BYTES and (piece := file.read1(_PIECE_BYTES)):
                sample += piece
        return bytes(sample)

    @contextmanager
    def _open(self) -> Iterator[io.BufferedIOBase]:
        with self.file.open("rb") as file, ExitStack() as stack:
            unzipped = gzip.GzipFile(fileobj=file, mode="rb") if self.is_compressed else None
            yield file if unzipped is None else stack.enter_context(unzipped)

    def _num_bytes(self) -> int:
        with self.file.open("rb") as file:
            return file.seek(0, io.SEEK_END)

    def _text(self, file: io.BufferedIOBase) -> TextIO:
        # A byte that is not UTF-8 becomes a lone surrogate, which is a fault of its row and not of the file.
        errors = "surrogateescape" if self.encoding == "utf-8-sig" else "strict"
        newline = "\n" if self.form == "jsonl" else ""
        return io.TextIOWrapper(cast("IO[bytes]", file), self.encoding, errors, newline)

    @contextmanager
    def _translated(self, num_rows: Callable[[], int]) -> Iterator[None]:
        try:
            yield
        except InvalidInput as error:
            raise InvalidInput(f"{self.file}: {error.message}", param=error.param) from error
        except _BROKEN as error:
            what = f"{self._what_broke(error)}; nothing was submitted"
            raise InvalidInput(f"{self.file}, after row {num_rows():,}: {what}") from error

    def _what_broke(self, error: Exception) -> str:
        if isinstance(error, EOFError):
            return "the .gz ends too early, as an interrupted copy does"
        if isinstance(error, (zlib.error, gzip.BadGzipFile)):
            return f"the .gz is damaged ({error})"
        if isinstance(error, UnicodeError):
            return f"the text is not {self.encoding} ({getattr(error, 'reason', error)})"
        return f"it cannot be read ({error})"


def _with_mark(encoding: str | None, sample: bytes) -> str:
    """Returns the form of an encoding that does not read a byte order mark as text."""
    try:
        name = codecs.lookup(encoding or "utf-8").name
        "".encode(name)  # a codec may also be one of bytes to bytes
    except (LookupError, ValueError) as error:
        raise InvalidInput(f"there is no text encoding {encoding!r}", param="encoding") from error
    if name == "utf-8":
        return "utf-8-sig"
    has_order = name.endswith(("-le", "-be"))
    return name[:-3] if has_order and sample.startswith("\ufeff".encode(name)) else name
