"""Files in other encodings, damaged files, and files far larger than they look."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.datasets.dataset import Dataset, Fields
from ponder.datasets.rows import parquet
from ponder.datasets.rows.row import Row
from ponder.datasets.source import Source
from ponder.errors import InvalidInput, SetupError

TABLE = "question,answer\nDéjà vu?,1\nOK,2\n"


@pytest.mark.parametrize(
    ("encoding", "named", "remedy"),
    [
        ("utf-16", "UTF-16", "utf-16"),
        ("utf-16-le", "UTF-16", "utf-16-le"),
        ("utf-16-be", "UTF-16", "utf-16-be"),
        ("utf-32", "UTF-32", "utf-32"),
        ("latin-1", "Latin-1", "latin-1"),
        ("cp1252", "Windows-1252", "cp1252"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_another_encoding_is_named_with_the_option_that_reads_it(
    tmp_path: Path, name: str, encoding: str, named: str, remedy: str
) -> None:
    text = TABLE.replace("OK", "“OK”") if encoding == "cp1252" else TABLE
    content = text.encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(InvalidInput, match=f"it is not UTF-8, but {named}.*: `--encoding {remedy}` reads it") as caught:
        Source.of(path)
    assert str(path) in caught.value.message
    assert next(row.values and row.values["question"] for row in Source.of(path, remedy).rows()) == "Déjà vu?"


@pytest.mark.parametrize("encoding", ["utf-8", "U8", "utf-16-le", "UTF_16BE", "utf-32-le"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_is_not_part_of_the_first_field(tmp_path: Path, encoding: str, mark: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes((mark + TABLE).encode(encoding))
    assert Source.of(path, encoding).fields() == ("question", "answer")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"q": "a"},\n{"q": "b"}]', "line 1: it is not JSON .*; if the file is one array of objects, call it .json"),
        ('\n[{"q": "a"}]', "line 2: it is not a JSON object; if the file is one array of objects, call it .json"),
        (
            '{\n "data": [\n{"q": "a"\n}]}',
            "line 1: it is not JSON .*; the object continues on the next line",
        ),
    ],
)
def test_a_file_that_is_one_document_is_refused_with_the_right_form(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert re.match(said, Source.of(path).first_trouble())


def test_a_wrong_encoding_stops_with_the_row_after_which_it_was_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question\n" + b"a\n" * 10_000 + b"\x81\n")
    with pytest.raises(InvalidInput, match=r"after row [0-9,]+: the text is not cp1252"):
        list(Source.of(path, "cp1252").rows())


def test_utf8_text_beyond_ascii_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes(("question\n" + "日本語 é\n" * 50_000).encode(encoding))
        assert sum(row.values == {"question": "日本語 é"} for row in Source.of(path).rows()) == 50_000


def test_zeros_in_a_file_are_a_fault_of_their_row_and_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"\0" * 1_000 + b'\n{"a": 2}\n')
    assert [row.values for row in Source.of(path).rows()] == [{"a": 1}, None, {"a": 2}]


ROWS = "".join(f'{{"question": "{number} + {number * 7919 % 1000}?", "answer": {number}}}\n' for number in range(3_000))


@settings(max_examples=30)
@given(share=st.floats(0.05, 0.999))
def test_a_truncated_gz_gives_its_whole_rows_and_then_says_where_it_broke(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.mktemp("gz") / "a.jsonl.gz"
    whole = gzip.compress(ROWS.encode())
    path.write_bytes(whole[: int(len(whole) * share)])
    rows: list[Row] = []
    with pytest.raises(InvalidInput) as caught:
        rows.extend(Source.of(path).rows())
    numbers = [row.values and row.values["answer"] for row in rows]
    assert numbers == list(range(len(numbers)))
    where = f"{path}, after row {len(numbers):,}: the .gz ends too early"
    assert caught.value.message.startswith(where)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.parquet.gz"])
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=9))
def test_a_corrupt_gz_is_one_sentence_or_what_it_was(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: float, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("gz") / name
    whole = bytearray(gzip.compress(ROWS[:5_000].encode()))
    place = int(at * (len(whole) - len(junk)))
    whole[place : place + len(junk)] = junk
    path.write_bytes(whole)
    with suppress(InvalidInput):
        list(Source.of(path, None if "parquet" in name else "utf-8").rows())


def test_an_array_is_read_element_by_element(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        "\n [ " + ",\n".join(json.dumps({"a": f"x{number}" * 50}) for number in range(2_000)) + ' , 7, {"a": 1}\n]\n'
    )
    rows = list(Source.of(path).rows())
    assert [row.values["a"] for row in rows[:2_000] if row.values] == [f"x{number}" * 50 for number in range(2_000)]
    assert (rows[2_000].place, rows[2_000].trouble) == ("row 2001 (line 2001)", "it is not a JSON object")
    assert rows[2_001].values == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"a": 1},\n{"a": }]', r"row 2 \(line 2\): it is not JSON"),
        ('[{"a": 1}\n{"a": 2}]', "line 2: the array is broken: , is expected, but there is {"),
        ('[{"a": 1},\n', "it is not JSON"),
        ('[{"a": 1}', "the end of the file"),
        ('[{"a": 1}]\n{"a": 2}', "line 2: there is more after the end of the array"),
        ('[{"a": "x}]', "it is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_array_is_refused_as_a_whole(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=said):
        list(Source.of(path).rows())


def test_a_json_file_with_an_object_a_line_is_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert [row.values for row in Source.of(path).rows()] == [{"a": 1}, {"a": 2}]


COUNT = """
import resource, sys
from pathlib import Path
from ponder.datasets.dataset import Dataset, Fields
from ponder.datasets.rows import parquet
from ponder.datasets.rows.row import Row
from ponder.datasets.source import Source
from itertools import islice
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = list(row.trouble for row in islice(Source.of(Path(sys.argv[1])).rows(), 100))
print(len(rows), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, rows[0])
"""


def read_apart(path: Path) -> tuple[int, int, str]:
    """Returns the number of rows, the megabytes it took to read them, and what was wrong with the first."""
    done = subprocess.run([sys.executable, "-c", COUNT, str(path)], capture_output=True, text=True, check=True)
    num_rows, megabytes, trouble = done.stdout.rstrip("\n").split(" ", 2)
    return int(num_rows), int(megabytes), trouble


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
def test_a_line_that_would_fill_the_memory_is_refused_without_being_held(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"question\n")
        for _ in range(200):
            file.write(b" " * 1_000_000)
        file.write(b"\nb\n")
    num_rows, megabytes, trouble = read_apart(path)
    assert num_rows == (2 if "csv" in name else 3)
    assert megabytes < 100
    assert "8 MB" in trouble or "not JSON" in trouble


def test_a_parquet_of_a_few_hundred_bytes_does_not_fill_the_memory(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1024, pyarrow.int32()), ["x" * 4_000_000])
    pyarrow.parquet.write_table(
        pyarrow.table({"question": column}), path, compression="zstd", store_schema=False, write_statistics=False,
        dictionary_pagesize_limit=2**26,
    )  # fmt: skip
    assert path.stat().st_size < 1_000
    num_rows, megabytes, _ = read_apart(path)
    assert num_rows == 100
    assert megabytes < 400


def test_text_that_parquet_does_not_mark_as_such_is_text_and_other_bytes_are_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["é".encode(), b"\xff"]}), path)
    made = Dataset(Source.of(path), Fields("question"), {})
    assert ["body" in json.loads(line) for line in made.lines()] == [True, False]
    assert made.count.refusals[0].reason == "it contains bytes that are not UTF-8 text"


def test_without_pyarrow_the_advice_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match="pip install pyarrow"):
        list(Source.of(tmp_path / "a.parquet").rows())


def test_a_value_longer_than_a_row_may_be_is_refused_and_a_bomb_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"question": ["x" * 9_000_000, "b"]})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    assert [(row.place, bool(row.trouble)) for row in Source.of(path).rows()] == [("row 1", True), ("row 2", False)]
    monkeypatch.setattr(parquet, "_BOMB_BYTES", 2**20)
    with pytest.raises(InvalidInput, match=r"row group 1, column question: .* at most 1 MB may expand"):
        list(Source.of(path).rows())
