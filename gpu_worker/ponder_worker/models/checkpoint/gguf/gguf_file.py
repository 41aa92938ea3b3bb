"""The header of a GGUF file: its metadata, and where its tensors are.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Its numbers and types come from the package
`gguf`. That package's own reader makes several arrays of every token, which takes most of a minute for a vocabulary of
150,000, and believes every count that a broken file gives.
"""

import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGMLQuantizationType, GGUFValueType

from ponder_worker.models.model_error import InvalidFile, MismatchedTensor, MissingTensor, UnsupportedModel

_NUMBERS = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "?",
}
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor in the file. shape: as in torch, `[out, in]`. start: its first byte in the file."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file that is complete: every tensor lies inside it. bytes: the file, mapped."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    bytes: mmap.mmap

    @classmethod
    def open(cls, path: Path) -> "GgufFile":
        """Maps a file and reads its header. Raises InvalidFile or UnsupportedModel."""
        with path.open("rb") as stream:
            if stream.read(4) != struct.pack("<I", GGUF_MAGIC):
                raise InvalidFile(
                    f"{path}: not a GGUF file: it does not begin with GGUF; a model is a GGUF file, or a folder in "
                    "Hugging Face's format"
                )
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return cls(path, *_Header(path, mapped).read(), mapped)
        except (struct.error, _Cut) as error:
            raise InvalidFile(f"{path}: the file is cut short, within its header: fetch it again") from error
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidFile(f"{path}: the header is broken: {error}") from error

    def field(self, name: str, kind: type, default: Any = None) -> Any:
        """The metadata of this name. Raises InvalidFile if it is missing without a default, or of another type."""
        value = self.metadata.get(name, default)
        if value is None and default is None:
            raise InvalidFile(f"{self.path}: the metadata lacks {name!r}")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise InvalidFile(f"{self.path}: {name} is {str(value)[:40]!r}; it must be of type {kind.__name__}")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """The metadata of this name, a positive number. Raises InvalidFile."""
        value: int = self.field(name, int, default)
        if value < 1:
            raise InvalidFile(f"{self.path}: {name} is {value}; it must be at least 1")
        return value

    def check_tensors(
        self, shapes: Iterable[tuple[str, tuple[int, ...]]], may_have: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Checks that the file has the tensors of these names and shapes, perhaps those of `may_have`, and no other.

        Raises MissingTensor, MismatchedTensor, or UnsupportedModel for a tensor that nothing would read.
        """
        unread = set(self.tensors)
        for name, shape in chain(((name, may_have[name]) for name in may_have if name in self.tensors), shapes):
            tensor = self.tensors.get(name)
            if tensor is None:
                raise MissingTensor(f"{self.path}: there is no tensor {name!r}, which the metadata asks for")
            if tensor.shape != shape:
                raise MismatchedTensor(
                    f"{self.path}: {name} is {list(tensor.shape)}, but the metadata asks for {list(shape)}"
                )
            unread.discard(name)
        if unread:
            raise UnsupportedModel(f"{self.path}: the tensor {min(unread)!r} is not read: is it another architecture?")


class _Cut(Exception):
    """The file ends before what its header announces."""


class _Header:
    """A reader that goes through the header once."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 4

    def read(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        """Reads metadata and tensors."""
        version = self._number("I")
        if version & 0xFFFF == 0:
            raise UnsupportedModel(f"{self._path}: a big-endian GGUF file is not read; take a little-endian one")
        if version not in _VERSIONS:
            raise UnsupportedModel(f"{self._path}: GGUF version {version} is not read; read: {_VERSIONS}")
        num_tensors, num_fields = self._number("Q"), self._number("Q")
        metadata = {self._text(): self._value(self._number("I")) for _ in range(num_fields)}
        parts = int(metadata.get("split.count", 1) or 1)
        if parts > 1:
            raise UnsupportedModel(
                f"{self._path}: one of {parts} parts of a model; join them first: "
                "`llama-gguf-split --merge FIRST_PART WHOLE_FILE`"
            )
        places = [(self._text(), self._shape(), self._number("I"), self._number("Q")) for _ in range(num_tensors)]
        alignment = int(metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT))
        if alignment < 1:
            raise ValueError(f"general.alignment is {alignment}")
        first = -(-self._at // alignment) * alignment
        return metadata, {name: self._tensor(name, shape, kind, first + at) for name, shape, kind, at in places}

    def _tensor(self, name: str, shape: tuple[int, ...], number: int, start: int) -> GgufTensor:
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise UnsupportedModel(f"{self._path}: {name} has the unknown type {number}") from error
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        if shape[-1] % per_block:
            raise InvalidFile(f"{self._path}: {name} has {shape[-1]} columns, not a multiple of {kind.name}'s blocks")
        num_bytes = int(np.prod(shape, dtype=object)) // per_block * block_bytes
        if start + num_bytes > len(self._data):
            raise InvalidFile(
                f"{self._path}: the file is cut short: it has {len(self._data):,} bytes, but {name} ends at "
                f"{start + num_bytes:,}: fetch it again"
            )
        return GgufTensor(name, shape, kind, start, num_bytes)

    def _shape(self) -> tuple[int, ...]:
        num_dimensions = self._number("I")
        if not 1 <= num_dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {num_dimensions} dimensions")
        return tuple(self._number("Q") for _ in range(num_dimensions))[::-1]

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return int(value)

    def _take(self, num_bytes: int) -> bytes:
        if num_bytes > len(self._data) - self._at:
            raise _Cut
        self._at += num_bytes
        return self._data[self._at - num_bytes : self._at]

    def _text(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", errors="replace")

    def _value(self, number: int) -> Any:
        """Reads a value of this type: a number, a text, or a list of either."""
        kind = GGUFValueType(number)
        if kind in _NUMBERS:
            return self._numbers(kind, 1)[0]
        if kind is GGUFValueType.STRING:
            return self._text()
        item, count = GGUFValueType(self._number("I")), self._number("Q")
        if item in _NUMBERS:
            return self._numbers(item, count)
        if item is not GGUFValueType.STRING:
            raise ValueError(f"a list of type {item.name}")
        if count > len(self._data):
            raise _Cut
        return [self._text() for _ in range(count)]

    def _numbers(self, kind: GGUFValueType, count: int) -> list[Any]:
        dtype = np.dtype(_NUMBERS[kind])
        values: list[Any] = np.frombuffer(self._take(dtype.itemsize * count), dtype).tolist()
        return values
