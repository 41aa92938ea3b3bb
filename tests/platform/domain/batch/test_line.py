"""Bytes are split into numbered lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.batch.line import decode, split
from ponder.errors import InvalidLine

lines_of_bytes = st.lists(st.binary(max_size=20).map(lambda one: one.replace(b"\n", b" ")), max_size=8)


@given(lines_of_bytes, st.lists(st.integers(1, 7), max_size=60))
def test_lines_do_not_depend_on_how_the_file_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    content = b"\n".join(lines)
    chunks, at = [], 0
    for length in cuts:
        chunks.append(content[at : at + length])
        at += length
    chunks.append(content[at:])
    assert list(split(chunks)) == list(split([content]))


@given(lines_of_bytes)
def test_every_line_comes_with_its_number(lines: list[bytes]) -> None:
    expected = {
        number: line.removesuffix(b"\r")
        for number, line in enumerate(lines, 1)
        if line.removesuffix(b"\r") and not line.removesuffix(b"\r").isspace()
    }
    if lines and lines[0].startswith(b"\xef\xbb\xbf"):
        return
    assert dict(split([b"\n".join(lines)])) == expected


def test_a_bom_carriage_returns_blank_lines_and_a_missing_newline_do_no_harm() -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"b": "\xe2\x80\xa8\x0c"}\n{"c": 3}'
    assert list(split([content])) == [(1, b'{"a": 1}'), (4, b'{"b": "\xe2\x80\xa8\x0c"}'), (5, b'{"c": 3}')]


def test_an_overlong_line_is_passed_over_without_being_held() -> None:
    chunks = [b"a\n", *(b"x" * 10 for _ in range(10)), b"\nb\n", b"y" * 31]
    assert list(split(chunks, max_bytes=30)) == [(1, b"a"), (2, None), (3, b"b"), (4, None)]
    assert list(split([b"x" * 30], max_bytes=30)) == [(1, b"x" * 30)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nonsense", "invalid_json_line"),
        (b"[1]", "invalid_json_line"),
        (b"\xff\xfe{", "invalid_json_line"),
        (b'{"a": NaN}', "invalid_json_line"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json_line"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json_line"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested_too_deeply"),
        (b'{"a": "\\u0000"}', "nul_character"),
        (b'{"a": {"\\ud83d": 1}}', "lone_surrogate"),
        (b'{"a": ["\\uDC00x"]}', "lone_surrogate"),
        (None, "line_too_long"),
    ],
)
def test_values_that_cannot_be_stored_are_refused(line: bytes | None, code: str) -> None:
    with pytest.raises(InvalidLine) as caught:
        decode(line, 7)
    assert (caught.value.code, caught.value.line) == (code, 7)


def test_escapes_that_only_look_dangerous_are_text() -> None:
    assert decode(b'{"a": "\\ud83d\\ude00 \\\\u0000"}', 1) == {"a": "\U0001f600 \\u0000"}
