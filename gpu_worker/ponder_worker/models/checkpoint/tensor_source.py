"""The named tensors of a model folder, from memory-mapped safetensors or GGUF files."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ponder_worker.models.checkpoint.folder import GGUF_WEIGHTS, weight_files
from ponder_worker.models.model_error import InvalidFile, MismatchedTensor, MissingTensor

_WRAPPERS = (
    ("pretrained_model.", ""),  # precedes the names in a model that was saved with a value head around it
    ("language_model.model.", "model."),  # beside a part that sees
    ("model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)
"""Beginnings of names, and what they are without the model around them."""


class TensorSource:
    """The named tensors of a folder, which are checked and cast when they are taken."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.folder, self._dtype, self._device = folder, dtype, device
        self._file_of: dict[str, tuple[Any, str]] = {}  # the file, and the name of the tensor in it
        for path in weight_files(folder):
            file = _open(path, dtype, device)
            self._file_of.update({_unwrapped(name): (file, name) for name in file.keys()})  # noqa: SIM118

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._file_of

    def take_any(self, name: str) -> torch.Tensor:
        """Takes a tensor of any shape."""
        file, stored = self._file_of[name]
        tensor: torch.Tensor = file.get_tensor(stored)
        return tensor.to(device=self._device, dtype=self._dtype)

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Takes a tensor of this shape. Raises MissingTensor or MismatchedTensor. dtype: if not that of all others."""
        if not self.has(name):
            raise MissingTensor(f"{self.folder}: the weights lack the tensor {name!r}, which config.json asks for")
        file, stored = self._file_of[name]
        tensor: torch.Tensor = file.get_tensor(stored)
        if tuple(tensor.shape) != shape:
            raise MismatchedTensor(
                f"{self.folder}: {name} is {list(tensor.shape)}, but config.json asks for {list(shape)}"
            )
        return tensor.to(device=self._device, dtype=dtype or self._dtype)

    def take_norm(self, name: str, size: int, *, centred: bool) -> torch.Tensor:
        """Takes the weight of a norm. centred: the checkpoint has it less 1; it is kept in float32, as it is used."""
        return self.take(name, size, dtype=torch.float32) + 1 if centred else self.take(name, size)

    def fuse(self, parts: dict[str, int], *columns: int) -> torch.Tensor:
        """Takes the named tensors, each `[rows, *columns]`, and concatenates them along the rows."""
        return torch.cat([self.take(name, rows, *columns) for name, rows in parts.items()])


def _unwrapped(name: str) -> str:
    for wrapped, plain in _WRAPPERS:
        if name.startswith(wrapped):
            return plain + name.removeprefix(wrapped)
    return name


def _open(path: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Maps a file. A tensor is read when it is taken, directly to the device."""
    if path.name == GGUF_WEIGHTS:
        # Here, because a bare GPU machine may lack the package gguf.
        from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile
        from ponder_worker.models.checkpoint.gguf.gguf_tensors import GgufTensors

        return GgufTensors(GgufFile.open(path.resolve()), dtype, device)
    open_file: Any = safe_open  # the library is untyped
    try:
        return open_file(path, framework="pt", device=str(device))
    except SafetensorError as error:
        raise InvalidFile(f"{path}: not a safetensors file: {error}") from error
