"""The files of a batch's results: as they grow while it runs, and as they are once it has ended."""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ponder.client import Client, ResultLine
from ponder.errors import InvalidInput, Unreachable
from ponder.wire import Json

_TRIES = 3
_PAGE = 1_000
_PAGES_A_ROUND = 10
"""So many pages at a time, so that whoever watches sees the progress in between."""


@dataclass(slots=True)
class ResultFiles:
    """A file of results and one of errors, which grow in the order in which jobs settle.

    Every line is written out before the next one, so whatever kills the process, the whole lines of both files are the
    first ones of the batch, and the last cursor among them says where to go on.
    """

    batch_id: str
    places: tuple[Path, Path]
    """For results and for errors."""
    cursor: str | None
    whole: dict[Path, int]
    """The bytes of whole lines of this batch in those files that have any. What follows them is overwritten."""
    _targets: dict[Path, BinaryIO] = field(default_factory=dict)

    @classmethod
    def resume(cls, batch_id: str, output: Path) -> Self:
        """Goes on with files of this batch after their last whole line. Others are replaced by its first line."""
        places = (output, errors_beside(output))
        ends = {place: _end(place, batch_id) for place in places}
        cursors = [cursor for cursor, _ in ends.values() if cursor is not None]
        whole = {place: num_bytes for place, (cursor, num_bytes) in ends.items() if cursor is not None}
        return cls(batch_id, places, max(cursors, default=None), whole)

    @property
    def written(self) -> list[Path]:
        """The files that hold lines of this batch."""
        return [place for place in self.places if place in self._targets or place in self.whole]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for target in self._targets.values():
            target.close()

    def catch_up(self, client: Client) -> None:
        """Writes what has settled since, as far as the API answers: the rest waits for the next call."""
        try:
            for _ in range(_PAGES_A_ROUND):
                page = client.results(self.batch_id, after=self.cursor, limit=_PAGE)
                for line in page.lines:
                    self.write(line)
                if len(page.lines) < _PAGE:
                    return
        except Unreachable:
            return

    def write(self, line: ResultLine) -> None:
        """Writes a line into the file that it belongs to. Raises InvalidInput if that is not possible."""
        place = self.places[line.is_error]
        try:
            if place not in self._targets:
                self._targets[place] = self._open(place)
            self._targets[place].write(line.text)
            self._targets[place].flush()
        except OSError as error:
            raise InvalidInput(f"{place} cannot be written: {error.strerror}") from error
        self.cursor = line.cursor

    def _open(self, place: Path) -> BinaryIO:
        if place not in self.whole:
            return place.open("wb")
        target = place.open("r+b")
        target.truncate(self.whole[place])
        target.seek(0, 2)
        return target


def _end(place: Path, batch_id: str) -> tuple[str | None, int]:
    """Returns the last cursor of this batch in a file and where its whole lines end, or None and 0."""
    try:
        with place.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
            last = content[content.rfind(b"\n", 0, max(end - 1, 0)) + 1 : end]
    except (OSError, ValueError):  # there is no such file, or it is empty
        return None, 0
    try:
        cursor = json.loads(last)["cursor"]
    except (ValueError, TypeError, KeyError):
        return None, 0
    return (cursor, end) if isinstance(cursor, str) and cursor.startswith(f"{batch_id}-") else (None, 0)


def fetch_all(client: Client, batch: Json, output: Path) -> list[Path]:
    """Writes output to `output`, and errors, if any, beside it. Returns the written files."""
    written = []
    for file_id, place in ((batch["output_file_id"], output), (batch["error_file_id"], errors_beside(output))):
        if file_id is not None:
            fetch(client, file_id, place)
            written.append(place)
    return written


def errors_beside(output: Path) -> Path:
    return output.with_name(f"{output.stem}.errors.jsonl")


def check_writable(output: Path) -> None:
    """Raises InvalidInput before anything is spent on results that could not be written."""
    if output.is_dir() or not output.parent.is_dir():
        raise InvalidInput(
            f"{output} cannot be written: {'it is a folder' if output.is_dir() else 'its folder is missing'}"
        )


def fetch(client: Client, file_id: str, place: Path) -> None:
    """Writes a file as a whole or not at all. A broken connection starts over; an old file stays until the end."""
    draft = place.with_name(f".{place.name}.draft")
    for left in reversed(range(_TRIES)):
        try:
            with draft.open("wb") as target, client.download(file_id) as pieces:
                for piece in pieces:
                    target.write(piece)
            draft.replace(place)
            return
        except Unreachable:
            if not left:
                raise
        except OSError as error:
            raise InvalidInput(f"{place} cannot be written: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
