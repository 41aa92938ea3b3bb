from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.datasets.dataset import Dataset, Fields
from ponder.datasets.source import Source
from ponder.domain.batch.line import MAX_LINE_BYTES
from ponder.errors import InvalidInput

QUESTION = Fields(prompt="question", answer="answer")
MODEL = {"model": "demo"}
LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}'


def dataset(path: Path, fields: Fields = QUESTION, body: dict[str, Any] = MODEL) -> Dataset:
    made = Dataset(Source.of(path), fields, body)
    made.check()
    return made


def lines(made: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.lines()]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.parquet.gz"]
)
def test_every_kind_of_file_gives_the_same_lines(tmp_path: Path, name: str) -> None:
    rows = [{"question": "1 + 1?", "answer": "2", "level": "1"}, {"question": 'a "b",\nc', "answer": "7", "level": "2"}]
    path = write(tmp_path / name, encoded(rows, name))
    made = dataset(path, Fields("question", "answer", None, "level"))
    assert lines(made) == [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "messages": [{"role": "user", "content": row["question"]}],
                "ponder": {"reference": row["answer"]},
                "metadata": {"level": row["level"]},
                "model": "demo",
            },
        }
        for number, row in enumerate(rows, start=1)
    ]
    assert (made.count.num_rows, made.count.num_refused) == (2, 0)


def encoded(rows: list[dict[str, Any]], name: str, encoding: str = "utf-8") -> bytes:
    if ".jsonl" in name:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding)
    if ".json" in name:
        return json.dumps(rows, ensure_ascii=False, indent=1).encode(encoding)
    if ".parquet" in name:
        import pyarrow
        import pyarrow.parquet

        target = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), target)
        return target.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), dialect="excel-tab" if ".tsv" in name else "excel")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def test_openai_lines_pass_as_they_are_even_bad_ones_and_without_a_last_newline(tmp_path: Path) -> None:
    content = LINE + b"\nnot json\n\n" + LINE
    for name in ("a.jsonl", "a.jsonl.gz"):
        made = dataset(write(tmp_path / name, content), Fields(), {})
        assert b"".join(made.lines()) == content


def test_the_command_line_overrides_openai_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINE + b'\nnot json\n{"custom_id":"b","body":7}\n')
    first, *others = dataset(path, Fields(), {"max_tokens": 5}).lines()
    assert json.loads(first)["body"] == {"model": "m", "messages": [], "max_tokens": 5}
    assert others == [b"not json\n", b'{"custom_id":"b","body":7}\n']


def refusals(made: Dataset) -> list[tuple[str, str]]:
    return [(refusal.place, refusal.reason) for refusal in made.count.refusals]


def test_a_row_without_a_named_field_names_line_and_field_and_never_stops_the_others(tmp_path: Path) -> None:
    rows = [
        b'{"question": "a", "answer": "1"}',
        b"",
        b'{"question": "b"}',
        b"nonsense",
        b"[1]",
        b'{"question": " ", "answer": 2}',
    ]
    path = write(tmp_path / "a.jsonl", b"\n".join(rows) + b'\n{"question": "c", "answer": 3}')
    made = dataset(path)
    uploaded = b"".join(made.lines()).split(b"\n")
    assert refusals(made) == [
        ("line 3", "it has no field 'answer'"),
        ("line 4", "it is not JSON (Expecting value)"),
        ("line 5", "it is not a JSON object"),
        ("line 6", "its field 'question' is empty"),
    ]
    assert json.loads(uploaded[2]) == {
        "custom_id": "row-2",
        "error": {"code": "invalid_row", "message": "a.jsonl, line 3: it has no field 'answer'"},
    }
    assert [b"body" in line for line in uploaded] == [True, False, False, False, False, False, True, False]


def test_a_csv_row_is_named_by_the_line_of_the_file_and_of_the_upload(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfquestion,answer\n"two\nlines",1\n\nb\nc,2,3\nd,4\n')
    made = dataset(path)
    uploaded = b"".join(made.lines()).split(b"\n")
    assert refusals(made) == [
        ("line 5", "it has 1 cell, but the header has 2"),
        ("line 6", "it has 3 cells, but the header has 2"),
    ]
    assert [number for number, line in enumerate(uploaded, start=1) if line] == [2, 5, 6, 7]


KINDS = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "latin-1"]
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", " ", "nan", "NaN", "a\r\nb"]
)
latin = st.text(st.characters(max_codepoint=0xFF), max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, str, list[dict[str, Any]]]:
    """Makes a file's name, encoding and rows, in which values are missing in every possible way."""
    name, encoding = draw(st.sampled_from(KINDS)), draw(st.sampled_from(ENCODINGS))
    text = latin if encoding == "latin-1" else cells
    missing = st.none() if name in ("a.csv", "a.tsv") else st.sampled_from([None, math.nan])
    answers = (
        text | missing if "parquet" not in name else draw(st.sampled_from([text | st.none(), st.floats() | missing]))
    )
    row = st.fixed_dictionaries({"question": text | st.none(), "answer": answers})
    return name + draw(st.sampled_from(["", ".gz"])), encoding, draw(st.lists(row, min_size=1, max_size=6))


def is_there(value: Any, is_text: bool) -> bool:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return False
    written = str(value)
    return bool(written.strip()) and "\0" not in written and not (is_text and written.strip().lower() == "nan")


@settings(max_examples=300)
@given(tables())
def test_no_row_disappears_and_every_refused_row_is_named(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[str, str, list[dict[str, Any]]]
) -> None:
    name, encoding, rows = table
    path = write(tmp_path_factory.mktemp("rows") / name, encoded(rows, name, encoding))
    is_text = ".csv" in name or ".tsv" in name
    made = Dataset(Source.of(path, None if "parquet" in name else encoding), QUESTION, MODEL)
    all_lines = [json.loads(line) for line in made.lines()]
    good = [all(is_there(row[name], is_text) for name in ("question", "answer")) for row in rows]
    assert ["body" in line for line in all_lines] == good
    assert made.count.num_rows == len(rows)
    assert made.count.num_refused == len(rows) - sum(good)
    assert [line["error"]["message"] for line in all_lines if "error" in line] == [
        f"{path.name}, {place}: {reason}" for place, reason in refusals(made)
    ]
    said = [line["body"]["messages"][0]["content"] for line in all_lines if "body" in line]
    assert said == [row["question"] for row, is_good in zip(rows, good, strict=True) if is_good]


BROKEN = {
    '"opened,1': "a quote is opened in it but never closed",
    'x,"opened': "a quote is opened in it but never closed",
    '"closed" early,1': "a quote is closed in the middle of a cell",
    "too few": "it has 1 cell, but the header has 2",
    "too,many,cells": "it has 3 cells, but the header has 2",
    "na\xefve,1": "it is not UTF-8 (byte 0xEF)",
}


@given(st.lists(st.sampled_from(["good,1", *BROKEN]), min_size=1, max_size=12))
def test_a_broken_line_of_a_csv_takes_no_other_with_it(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_bytes("\n".join(["question,answer", *lines]).encode("latin-1"))
    made = Dataset(Source.of(path, "utf-8"), QUESTION, MODEL)
    all_lines = [json.loads(line) for line in made.lines()]
    assert ["body" in line for line in all_lines] == [line == "good,1" for line in lines]
    expected = [(f"line {number}", BROKEN[line]) for number, line in enumerate(lines, start=2) if line in BROKEN]
    for (place, reason), (wanted_place, wanted) in zip(refusals(made), expected, strict=False):
        assert place == wanted_place
        # An opened quote ends at the next one, in the middle of another line.
        assert reason.startswith((wanted, "a quote is closed in the middle of a cell"))


def test_bytes_that_are_not_utf8_are_a_fault_of_their_row(tmp_path: Path) -> None:
    made = dataset(write(tmp_path / "a.csv", b"question,answer\nna\xefve,1\n\xc3\xa9,2\n"))
    assert ["body" in line for line in lines(made)] == [False, True]
    [(place, reason)] = refusals(made)
    assert place == "line 2"
    assert reason.startswith("it is not UTF-8 (byte 0xEF)")


def test_ids_and_conversations_are_taken_from_the_row(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path = write(tmp_path / "a.jsonl", json.dumps({"question": talk, "n": 17}).encode())
    (line,) = lines(dataset(path, Fields("question", None, "n")))
    assert (line["custom_id"], line["body"]["messages"]) == ("17", talk)


def test_a_file_that_cannot_be_what_the_options_say_is_refused_with_advice(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", b'{"question": "a", "answer": "1"}\n')
    with pytest.raises(InvalidInput, match="`--prompt question` and `--answer answer`"):
        dataset(plain, Fields())
    with pytest.raises(InvalidInput, match="--model"):
        dataset(plain, QUESTION, {})
    with pytest.raises(InvalidInput, match="omit --prompt"):
        dataset(write(tmp_path / "b.jsonl", LINE))
    with pytest.raises(InvalidInput, match="no row"):
        dataset(write(tmp_path / "c.jsonl", b"\n\n"))
    with pytest.raises(InvalidInput, match="does not show its format"):
        dataset(write(tmp_path / "d.xlsx", b""))
    with pytest.raises(InvalidInput, match="no such file"):
        dataset(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="not Parquet"):
        dataset(write(tmp_path / "e.parquet", b"PAR1 or not"))
    with pytest.raises(InvalidInput, match="names a more than once"):
        dataset(write(tmp_path / "g.csv", b"a,b,a\n1,2,3\n"))
    with pytest.raises(InvalidInput, match=r"\(line 1: it is not JSON"):
        dataset(write(tmp_path / "h.jsonl", b"question,answer\n1,2\n"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_field_that_no_row_has_stops_everything_and_names_those_that_exist(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, encoded([{"question": "a", "answer": "1"}], name))
    with pytest.raises(
        InvalidInput, match="no row has the field 'qestion' of --prompt; the fields are question, answer"
    ):
        dataset(path, Fields("qestion", "answer"))
    with pytest.raises(InvalidInput, match="no row has the field 'levle' of --level"):
        dataset(path, Fields("question", "answer", None, "levle"))


def test_a_field_with_a_name_that_cannot_be_read_is_shown_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question, answer,été,\u200bid,\nx,1,2,3,4\n".encode())
    with pytest.raises(InvalidInput, match=r"the fields are question, ' answer', été, '\\u200bid', ''$"):
        dataset(path, QUESTION)


def test_a_long_name_of_a_file_leaves_room_for_the_reason(tmp_path: Path) -> None:
    made = dataset(write(tmp_path / f"{'long' * 50}.jsonl", b'{"answer": 1}\n{"question": "a"}'), Fields("question"))
    refused = lines(made)[0]["error"]["message"]
    assert refused.startswith("longlong")
    assert refused.endswith("long.jsonl, line 1: it has no field 'question'")
    assert len(refused) < 100


@pytest.mark.parametrize("level", ["", ', "l": null', ', "l": NaN', ', "l": " "'])
def test_a_row_without_its_level_is_asked_without_it(tmp_path: Path, level: str) -> None:
    rows = f'{{"question": "a", "answer": 1{level}}}\n{{"question": "b", "answer": 1, "l": 3}}\n'
    made = dataset(write(tmp_path / "a.jsonl", rows.encode()), Fields("question", "answer", None, "l"))
    assert [line["body"].get("metadata") for line in lines(made)] == [None, {"level": "3"}]
    assert made.count.num_refused == 0


def test_a_field_that_only_a_late_row_has_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "a"}\n' * 500 + '{"question": "b", "answer": 1}\n')
    assert sum("body" in line for line in lines(dataset(path))) == 1


@pytest.mark.parametrize("first", [b"not json", b'{"custom_id": "a", "method": "POST"}', b"[1]", b""])
def test_the_first_line_alone_does_not_decide_whether_a_file_is_a_batch_file(tmp_path: Path, first: bytes) -> None:
    content = first + b"\n" + LINE + b"\n" + LINE + b"\n"
    made = dataset(write(tmp_path / "a.jsonl", content), Fields(), {})
    assert b"".join(made.lines()) == content
    assert made.count.num_rows == 2 + bool(first)


def test_one_line_like_a_batch_files_does_not_make_a_data_set_a_batch_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINE + b'\n{"question": "b", "answer": 1}' * 3)
    assert ["body" in line for line in lines(dataset(path))] == [False, True, True, True]


def test_a_bad_line_of_a_batch_file_is_reported_with_the_servers_reason(tmp_path: Path) -> None:
    made = dataset(
        write(tmp_path / "a.jsonl", LINE + b'\n{"custom_id": NaN}\n\n{"a": "\\u0000"}\n' + LINE), Fields(), {}
    )
    assert len(list(made.lines())) == 4
    assert refusals(made) == [
        ("line 2", "the line is not JSON: NaN is not a JSON number"),
        ("line 4", "a contains a NUL character (\\u0000), which cannot be stored"),
    ]


def test_an_array_of_batch_lines_is_a_batch_file(tmp_path: Path) -> None:
    made = dataset(write(tmp_path / "a.json", b"[" + LINE + b",\n" + LINE + b"]"), Fields(), {"max_tokens": 5})
    assert [line["body"] for line in lines(made)] == [{"model": "m", "messages": [], "max_tokens": 5}] * 2


def test_an_empty_list_is_a_conversation_that_asks_nothing(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "u", "name": None}, {"content": "no role"}]
    rows = [{"question": [], "answer": "1"}, {"question": talk, "answer": "1"}]
    made = dataset(write(tmp_path / "a.jsonl", encoded(rows, "a.jsonl")))
    [refused, taken] = lines(made)
    assert refused["error"]["message"] == "a.jsonl, line 1: its field 'question' is an empty conversation"
    # A message without a role is for the server to refuse: the conversation does not become a text for that.
    assert taken["body"]["messages"] == [{"role": "user", "content": "u"}, {"content": "no role"}]


def test_keys_that_arrow_filled_with_nulls_are_absent(tmp_path: Path) -> None:
    rows = [
        {
            "question": [
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "a", "weight": {"x": 1, "y": 2}},
            ]
        },
        {"question": [{"role": "user", "content": "v", "weight": {"y": 2}}]},
    ]
    made = dataset(write(tmp_path / "a.parquet", encoded(rows, "a.parquet")), Fields("question"))
    assert [line["body"]["messages"] for line in lines(made)] == [row["question"] for row in rows]


def test_a_refusal_keeps_the_id_of_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"q": "", "n": "x\\ud800"}\n{"q": "", "n": 5}\n{"q": "a", "n": null}\n')
    ids = [line["custom_id"] for line in lines(dataset(path, Fields("q", None, "n")))]
    assert ids == ["x\ufffd", "5", "row-3"]


def test_a_row_beyond_the_servers_limit_is_refused_here(tmp_path: Path) -> None:
    long = "\N{SNOWMAN}" * (MAX_LINE_BYTES // 5)  # six bytes each in the upload
    made = dataset(write(tmp_path / "a.csv", f"question,answer\n{long},1\nb,2\n".encode()))
    assert ["body" in line for line in lines(made)] == [False, True]
    assert refusals(made)[0][1].startswith("it makes a line of 10,")


def test_fields_are_recognised_in_any_case() -> None:
    assert Fields.likely(["ID", "Question", "Level", "Expected_Answer"]) == Fields(
        "Question", "Expected_Answer", "ID", "Level"
    )
    assert Fields.likely(["Prompt", "prompt"]).prompt == "Prompt"
