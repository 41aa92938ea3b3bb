from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.cli.dataset import Dataset, Fields
from ponder.cli.source import Source
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


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.parquet.gz"])
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
    assert made.num_troubles == 0


def encoded(rows: list[dict[str, str]], name: str) -> bytes:
    if ".jsonl" in name:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
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
    return text.getvalue().encode()


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


def test_a_row_without_a_named_field_names_file_line_and_field_and_never_stops_the_others(tmp_path: Path) -> None:
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
    all_lines = lines(made)
    assert [("messages" in line["body"]) for line in all_lines] == [True, False, False, False, False, True]
    assert len({line["custom_id"] for line in all_lines}) == 6
    assert made.num_troubles == 4
    assert made.troubles[0] == f"{path}, line 3: it has no field 'answer'"
    assert "line 4: it is not JSON" in made.troubles[1]
    assert "line 5: it is not a JSON object" in made.troubles[2]
    assert "line 6: its field 'question' is empty" in made.troubles[3]


def test_a_csv_row_is_named_by_the_line_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfquestion,answer\n"two\nlines",1\nb\nc,2,3\nd,4\n')
    made = dataset(path)
    assert [len(line["body"]) for line in lines(made)] == [3, 1, 1, 3]
    assert [
        "line 4: its field 'answer' is empty" in made.troubles[0],
        "line 5: it has more cells" in made.troubles[1],
    ] == [True] * 2


def test_bytes_that_are_not_utf8_are_left_to_the_server_to_refuse(tmp_path: Path) -> None:
    made = dataset(write(tmp_path / "a.csv", b"question,answer\nna\xefve,1\nok,2\n"))
    assert [line["body"]["messages"][0]["content"] for line in lines(made)] == ["na\udcefve", "ok"]


def test_ids_and_conversations_are_taken_from_the_row(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path = write(tmp_path / "a.jsonl", json.dumps({"question": talk, "n": 17}).encode())
    (line,) = lines(dataset(path, Fields("question", None, "n")))
    assert (line["custom_id"], line["body"]["messages"]) == ("17", talk)


def test_a_file_that_cannot_be_what_the_options_say_is_refused_with_advice(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", b'{"question": "a", "answer": "1"}\n')
    with pytest.raises(InvalidInput, match="--prompt question --answer answer"):
        dataset(plain, Fields())
    with pytest.raises(InvalidInput, match="--model"):
        dataset(plain, QUESTION, {})
    with pytest.raises(InvalidInput, match="leave --prompt"):
        dataset(write(tmp_path / "b.jsonl", LINE))
    with pytest.raises(InvalidInput, match="no row"):
        dataset(write(tmp_path / "c.jsonl", b"\n\n"))
    with pytest.raises(InvalidInput, match="cannot tell"):
        dataset(write(tmp_path / "d.xlsx", b""))
    with pytest.raises(InvalidInput, match="no such file"):
        dataset(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="not Parquet"):
        dataset(write(tmp_path / "e.parquet", b"PAR1 or not"))
    (tmp_path / "f.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(InvalidInput, match="cannot be read"):
        dataset(tmp_path / "f.jsonl.gz")


@given(rows=st.lists(st.fixed_dictionaries({"question": st.text(), "answer": st.text() | st.integers() | st.none()})))
def test_every_row_becomes_exactly_one_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Dataset(Source.of(path), QUESTION, MODEL)
    good = [row for row in rows if row["question"].strip() and row["answer"] is not None and str(row["answer"]).strip()]
    all_lines = lines(made)
    assert len(all_lines) == len(rows)
    assert sum("messages" in line["body"] for line in all_lines) == len(good)
    assert made.num_troubles == len(rows) - len(good)
