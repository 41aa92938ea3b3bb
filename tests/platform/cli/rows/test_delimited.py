from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.cli.rows import delimited
from ponder.cli.rows.row import MAX_ROW, Row
from ponder.errors import InvalidInput


def read(text: str, dialect: str = "excel") -> list[Row]:
    return list(delimited.rows(io.StringIO(text, newline=""), dialect))


@given(st.text('",\nab \r', max_size=60))
def test_whatever_stands_in_it_every_line_belongs_to_a_row_or_is_blank(text: str) -> None:
    lines = io.StringIO("h,i\n" + text, newline="").readlines()
    rows = read("h,i\n" + text)
    begins = [row.number for row in rows]
    assert begins == sorted(set(begins))
    covered: set[int] = set()
    for row, end in zip(rows, [*(after - 1 for after in begins[1:]), len(lines)], strict=False):
        # A refused row is one line; a good one goes on as long as a quote is open.
        covered |= {row.number} if row.values is None and "quote" in row.trouble else set(range(row.number, end + 1))
    uncovered = [line for number, line in enumerate(lines, start=1) if number > 1 and number not in covered]
    assert all(not line.strip(" \r\n") for line in uncovered)


def test_tabs_alone_are_a_row_of_empty_cells_in_tsv() -> None:
    assert [row.values for row in read("a\tb\n\t\n \nx\ty\n", "excel-tab")] == [
        {"a": "", "b": ""},
        {"a": "x", "b": "y"},
    ]


def test_an_empty_cell_that_is_quoted_is_a_row() -> None:
    assert [row.values for row in read('a\n""\n\nb\n')] == [{"a": ""}, {"a": "b"}]


def test_a_quote_that_stays_open_for_too_long_is_refused_and_what_follows_is_read() -> None:
    good = "x" * 1_000 + ",2\n"
    rows = read('a,b\n"open,1\n' + good * (MAX_ROW // 1_000))
    assert rows[0].trouble == "a quote is opened in it and not closed within 8 MB"
    assert len(rows) == MAX_ROW // 1_000 + 1
    assert not any(row.trouble for row in rows[1:])


def test_a_header_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidInput, match="line 1, the header"):
        read('"a,b\n1,2\n')


def test_open_quotes_cost_in_proportion_to_their_number() -> None:
    def took(num_lines: int, line: str) -> float:
        text = "a,b\n" + line * num_lines
        begun = time.process_time()
        read(text)
        return time.process_time() - begun

    for line in ('"open,1\n', 'x,"open\n', '"a""b,1\n'):
        took(1_000, line)
        once = min(took(8_000, line) for _ in range(3))
        assert min(took(16_000, line) for _ in range(3)) < 2.5 * once
