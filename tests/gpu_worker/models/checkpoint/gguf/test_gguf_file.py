"""Headers of GGUF files: what is read of whole ones, and what is said of broken ones."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.model_error import InvalidFile, ModelError, UnsupportedModel

from ....gguf_files import Kind, write_gguf

NUMBERS = {
    "uint8": st.integers(0, 2**8 - 1),
    "int8": st.integers(-(2**7), 2**7 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(min_size=1, max_size=20),
    "array": st.lists(st.text(max_size=5), min_size=1, max_size=5)
    | st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5)
    | st.lists(st.booleans(), min_size=1, max_size=5),
}
VALUES = st.sampled_from(sorted(NUMBERS)).flatmap(lambda kind: st.tuples(st.just(kind), NUMBERS[kind]))


@dataclass(frozen=True)
class Whole:
    """The contents of a good file, whose header ends at `header`."""

    data: bytes = field(repr=False)
    header: int

    def damaged(self, *changes: tuple[int, bytes]) -> bytes:
        data = bytearray(self.data)
        for at, new in changes:
            data[at : at + len(new)] = new
        return bytes(data)


@pytest.fixture(scope="module")
def whole(llama_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = write_gguf(llama_folder(), tmp_path_factory.mktemp("whole") / "m.gguf", Kind.Q8_0)
    return Whole(path.read_bytes(), min(tensor.start for tensor in GgufFile.open(path).tensors.values()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken") / "m.gguf"


@given(fields=st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=6), alignment=st.sampled_from([8, 32]))
def test_every_type_of_metadata_comes_back(place: Path, fields: dict[str, tuple[str, Any]], alignment: int) -> None:
    fields = {name: value for name, value in fields.items() if not name.startswith("general.")}
    writer = GGUFWriter(place, "llama")
    writer.add_custom_alignment(alignment)
    for name, (kind, value) in fields.items():
        getattr(writer, f"add_{kind}")(name, value)
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GgufFile.open(place)
    assert {name: found.metadata[name] for name in fields} == {name: value for name, (_, value) in fields.items()}
    for tensor in GGUFReader(place).tensors:
        own = found.tensors[tensor.name]
        assert (own.start, own.num_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert own.shape == tuple(tensor.shape.tolist()[::-1])
        assert own.kind is tensor.tensor_type


@settings(max_examples=300)
@given(data=st.data())
def test_a_file_that_is_cut_anywhere_is_said_to_be(whole: Whole, place: Path, data: st.DataObject) -> None:
    places = st.integers(4, whole.header) | st.integers(4, len(whole.data) - 1)
    place.write_bytes(whole.data[: data.draw(places)])
    with pytest.raises(InvalidFile, match=r"m\.gguf: the file is cut short.*: fetch it again"):
        GgufFile.open(place)


@settings(max_examples=400)
@given(data=st.data())
def test_whatever_a_damaged_header_says_it_is_a_model_or_an_error_that_names_the_file(
    whole: Whole, place: Path, data: st.DataObject
) -> None:
    new = st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8])
    changes = data.draw(st.lists(st.tuples(st.integers(4, whole.header - 8), new), min_size=1, max_size=3))
    place.write_bytes(whole.damaged(*changes))
    said = f"{place}: "
    try:
        with model_folder(place) as folder:
            assert (folder / "config.json").is_file()
    except ModelError as error:
        said = str(error)
    assert said.startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("at", "new", "kind", "message"),
    [
        (0, b"GGML", InvalidFile, "not a GGUF file: it does not begin with GGUF; a model is"),
        (4, struct.pack(">I", 3), UnsupportedModel, "a big-endian GGUF file is not read; take a little-endian one"),
        (4, struct.pack("<I", 1), UnsupportedModel, r"GGUF version 1 is not read; read: \(2, 3\)"),
        (8, b"\xff" * 8, InvalidFile, "the (file is cut short|header is broken)"),
        (16, b"\xff" * 8, InvalidFile, "the (file is cut short|header is broken)"),
    ],
)
def test_a_file_of_another_format_is_named(
    whole: Whole, place: Path, at: int, new: bytes, kind: type[ModelError], message: str
) -> None:
    place.write_bytes(whole.damaged((at, new)))
    with pytest.raises(kind, match=rf"m\.gguf: {message}"):
        GgufFile.open(place)


def test_an_empty_file_is_not_one(place: Path) -> None:
    place.write_bytes(b"")
    with pytest.raises(InvalidFile, match="not a GGUF file"):
        GgufFile.open(place)


def test_a_tensor_of_an_unknown_type_is_named(whole: Whole, place: Path) -> None:
    name = b"blk.0.ffn_down.weight"
    at = whole.data.index(name) + len(name) + 4 + 2 * 8
    place.write_bytes(whole.damaged((at, struct.pack("<I", 999))))
    with pytest.raises(UnsupportedModel, match=r"blk\.0\.ffn_down\.weight has the unknown type 999"):
        GgufFile.open(place)


def test_a_part_of_a_model_is_told_how_to_be_joined(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    path = write_gguf(llama_folder(), tmp_path / "m-00001-of-00003.gguf", split__count=3)
    with pytest.raises(UnsupportedModel, match="one of 3 parts of a model; join them first: `llama-gguf-split --merge"):
        GgufFile.open(path)
