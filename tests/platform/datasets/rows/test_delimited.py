from __future__ import annotations

import csv
import io

import pytest
from growth import MOST_GROWTH, growth
from hypothesis import given
from hypothesis import strategies as st

from ponder.datasets.rows import delimited
from ponder.datasets.rows.row import MAX_ROW, Row
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
        # A line that makes no row is refused alone. Other rows continue as long as a quote is open.
        goes_on = "closes on line" in row.trouble or "continues to line" in row.trouble
        is_alone = row.values is None and "quote" in row.trouble and not goes_on
        covered |= {row.number} if is_alone else set(range(row.number, end + 1))
    uncovered = [line for number, line in enumerate(lines, start=1) if number > 1 and number not in covered]
    assert all(not line.strip(" \r\n") for line in uncovered)


@given(
    st.lists(st.sampled_from(["one,1", "two words,2", "f(x),3.5"]), min_size=2, max_size=9)
    | st.lists(st.sampled_from(["one,Rome", "two,Oslo", "f(x),a (b)"]), min_size=2, max_size=9),
    st.data(),
)
def test_rows_between_two_stray_quotes_never_disappear_without_a_word(rows: list[str], data: st.DataObject) -> None:
    opened = data.draw(st.integers(0, len(rows) - 2))
    closed = data.draw(st.integers(opened + 1, len(rows) - 1))
    written = list(rows)
    written[opened] = '"' + written[opened]
    written[closed] = written[closed].replace(",", '",')
    made = read("\n".join(["q,a", *written]))
    [refused] = [row for row in made if row.values is None]
    assert refused.number == opened + 2
    assert f"closes on line {closed + 2}," in refused.trouble
    kept = [f"{row.values['q']},{row.values['a']}" for row in made if row.values is not None]
    assert kept == rows[:opened] + rows[closed + 1 :]


def test_a_stray_quote_in_the_last_column_does_not_hide_the_next_row_either() -> None:
    [first, refused, last] = read('q,a\none,1\ntwo,"2\nthree,3"\nfour,4\n')
    assert (first.number, refused.number, last.number) == (2, 3, 5)
    assert "closes on line 4," in refused.trouble


def test_a_row_that_a_quote_leads_into_the_next_line_is_refused_with_both_lines() -> None:
    [refused, last] = read('q,a\none,"1\nmore",x\nthree,3\n')
    assert refused.trouble == "it continues to line 3 because of a quote, and has 3 cells, but the header has 2"
    assert last.values == {"q": "three", "a": "3"}


ordinary = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=40)


@given(st.lists(st.tuples(ordinary, ordinary), min_size=1, max_size=4), st.sampled_from(["excel", "excel-tab"]))
def test_cells_of_many_lines_that_do_not_look_like_rows_are_cells(cells: list[tuple[str, str]], dialect: str) -> None:
    table = [("Solve:\n" + question, answer) for question, answer in cells]
    text = io.StringIO(newline="")
    csv.writer(text, dialect).writerows([("q", "a"), *table])
    made = read(text.getvalue(), dialect)
    assert [row.values and tuple(row.values.values()) for row in made] == [
        tuple(None if cell.strip().lower() == "nan" else cell for cell in row) for row in table
    ]


@pytest.mark.parametrize(
    "question",
    [
        "Solve this.\nIf x, then y.\nWhat is z?",
        "Roses, red\nviolets, blue\n\nsugar, sweet",
        "First, a\nthen, b, and c\nthen d",
        "One\ntwo",
        "one, two\nthree",
        "Roses,red\nviolets",
        "Let f(x,y) be a function.\nFind it",
        "1,000 apples\nand more",
        "First,\nsecond",
    ],
)
def test_a_prompt_of_many_lines_with_commas_is_one_cell(question: str) -> None:
    assert [row.values for row in read(f'q,a\n"{question}",1\n')] == [{"q": question, "a": "1"}]
    assert [row.values for row in read(f'q\n"{question}"\n')] == [{"q": question}]


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
    assert rows[0].trouble == "a quote is opened in it but not closed within 8 MB"
    assert len(rows) == MAX_ROW // 1_000 + 1
    assert not any(row.trouble for row in rows[1:])


def test_a_header_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidInput, match="line 1, the header"):
        read('"a,b\n1,2\n')


@pytest.mark.parametrize("line", ['"open,1\n', 'x,"open\n', '"a""b,1\n', '"open,1\nx,2\nclosed",3\n'])
def test_open_quotes_cost_in_proportion_to_their_number(line: str) -> None:
    assert growth(lambda num_lines: read("a,b\n" + line * num_lines), 8_000) <= MOST_GROWTH
