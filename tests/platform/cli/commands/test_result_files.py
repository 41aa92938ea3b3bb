"""Files that grow while a batch runs: whatever kills the process, they go on without a gap or a duplicate line."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.cli.commands.result_files import ResultFiles
from ponder.client import ResultLine
from ponder.errors import InvalidInput

BATCH = "batch_01"


def _line(number: int, *, is_error: bool, batch: str = BATCH, text: str = "ü") -> ResultLine:
    kind = "l" if number < 3 else "n"
    error = {"code": "x"} if is_error else None
    line = {"custom_id": f"row-{number}", "error": error, "answer": text, "cursor": f"{batch}-{kind}{number:012}"}
    return ResultLine.of(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _write(output: Path, lines: list[ResultLine], batch: str = BATCH) -> None:
    """Writes the lines after the cursor, as the API would send them."""
    with ResultFiles.resume(batch, output) as files:
        for line in lines:
            if files.cursor is None or line.cursor > files.cursor:
                files.write(line)


@given(
    kinds=st.lists(st.booleans(), min_size=1, max_size=12),
    kills=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 200)), max_size=4),
)
def test_a_process_that_is_killed_at_any_byte_loses_and_repeats_nothing(
    kinds: list[bool], kills: list[tuple[int, int]]
) -> None:
    lines = [_line(number, is_error=is_error) for number, is_error in enumerate(kinds)]
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "out.jsonl"), Path(folder, "out.errors.jsonl")
        for num_written, num_torn in kills:
            _write(output, lines[:num_written])
            written = lines[:num_written]
            if written:  # the last line is only written in part
                place = errors if written[-1].is_error else output
                content = place.read_bytes()
                if content.endswith(written[-1].text):
                    place.write_bytes(content[: len(content) - min(num_torn, len(written[-1].text))])
        _write(output, lines)
        for place, is_error in ((output, False), (errors, True)):
            expected = b"".join(line.text for line in lines if line.is_error is is_error)
            # A line that was torn in its first bytes, and then not the last one, leaves an empty file.
            assert (place.read_bytes() if place.exists() else b"") == expected


def test_the_file_of_another_batch_stays_until_the_first_line_comes(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    _write(output, [_line(5, is_error=False, batch="batch_012")], "batch_012")
    before = output.read_bytes()
    with ResultFiles.resume(BATCH, output) as files:
        assert files.cursor is None, "the id of the one batch begins like that of the other"
        assert output.read_bytes() == before
        files.write(line := _line(1, is_error=False))
    assert output.read_bytes() == line.text


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"no JSON", b"[1]\n", b'{"cursor": 1}\n', b"\xff\xfe\n", b'{"a": 1}\n']
)
def test_what_is_no_file_of_results_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    output = tmp_path / "out.jsonl"
    output.write_bytes(content)
    _write(output, lines := [_line(1, is_error=False), _line(2, is_error=False)])
    assert output.read_bytes() == b"".join(line.text for line in lines)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with ResultFiles.resume(BATCH, output) as files:
        output.mkdir()
        with pytest.raises(InvalidInput, match=r"out\.jsonl cannot be written: Is a directory"):
            files.write(_line(1, is_error=False))
