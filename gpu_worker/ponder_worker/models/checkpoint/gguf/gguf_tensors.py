"""The tensors of a GGUF file under Hugging Face's names, dequantised a piece at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from gguf.quants import dequantize

from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile, GgufTensor
from ponder_worker.models.model_error import UnsupportedModel

_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
"""The types that are read. Q5_0 and Q5_1 are in files such as Q4_K_M where rows are no multiple of 256."""
_PIECE = 1 << 20  # the number of elements that are dequantised at a time, by one thread
_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROTATED = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}


class GgufTensors:
    """The tensors by Hugging Face's names, with the methods of a safetensors file."""

    def __init__(self, file: GgufFile, dtype: torch.dtype, device: torch.device) -> None:
        """Prepares to read. Raises UnsupportedModel for a quantisation that is not read, naming the tensor."""
        self._file, self._dtype, self._device = file, dtype, device
        self._tensors: dict[str, GgufTensor] = {}
        for tensor in file.tensors.values():
            name = _name(tensor.name)
            if name is not None:
                _check_kind(file, tensor)
                self._tensors[name] = tensor

    def keys(self) -> list[str]:
        """The names of all tensors."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        """Dequantises a tensor to the dtype, on the device. It takes little memory beside the result."""
        tensor = self._tensors[name]
        out = torch.empty(tensor.shape, dtype=self._dtype)
        rows = out.view(-1, tensor.shape[-1])
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # numpy releases the interpreter lock
            list(threads.map(lambda piece: _fill(self._file, tensor, rows, piece), _pieces(tensor)))
        return self._unpermuted(tensor, out).to(self._device)

    def _unpermuted(self, tensor: GgufTensor, weight: torch.Tensor) -> torch.Tensor:
        """Undo what llama.cpp does to the rows of Llama's queries and keys, whose rotation pairs neighbours.

        Here, as in Hugging Face, the rotation pairs the two halves of a head.
        """
        count = _ROTATED.get(tensor.name.split(".")[-2])
        architecture = self._file.metadata["general.architecture"]
        if count is None or architecture != "llama":
            return weight
        heads = self._file.metadata.get(f"llama.{count}") or self._file.metadata["llama.attention.head_count"]
        pairs = weight.view(heads, -1, 2, *weight.shape[1:])
        return pairs.transpose(1, 2).reshape(weight.shape)


def dequantise(file: GgufFile, tensor: GgufTensor) -> torch.Tensor:
    """A small tensor in float32. Raises UnsupportedModel for a quantisation that is not read."""
    _check_kind(file, tensor)
    out = torch.empty(tensor.shape)
    _fill(file, tensor, out.view(-1, tensor.shape[-1]), (0, out.numel() // tensor.shape[-1]))
    return out


def _name(name: str) -> str | None:
    """Hugging Face's name of a tensor; None for one that is not of the layers, such as rope factors."""
    stem, _, kind = name.rpartition(".")
    if stem in _MODULES:
        return f"{_MODULES[stem]}.{kind}"
    match stem.split("."):
        case ["blk", layer, module] if module in _LAYER_MODULES:
            return f"model.layers.{layer}.{_LAYER_MODULES[module]}.{kind}"
    return None


def _check_kind(file: GgufFile, tensor: GgufTensor) -> None:
    if tensor.kind.name not in _TYPES:
        raise UnsupportedModel(
            f"{file.path}: {tensor.name} is quantised as {tensor.kind.name}, which is not read; read: "
            f"{', '.join(_TYPES)}: take a file such as Q4_K_M or Q8_0"
        )


def _pieces(tensor: GgufTensor) -> Iterator[tuple[int, int]]:
    """Ranges of rows, from the first up to the last but one."""
    num_rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
    step = max(1, _PIECE // tensor.shape[-1])
    return ((first, min(first + step, num_rows)) for first in range(0, num_rows, step))


def _fill(file: GgufFile, tensor: GgufTensor, rows: torch.Tensor, piece: tuple[int, int]) -> None:
    """Dequantises some rows of a tensor into those of `rows`, `[num_rows, columns]`."""
    first, last = piece
    row_bytes = tensor.num_bytes // len(rows)
    start = tensor.start + first * row_bytes
    stored: Any = np.frombuffer(file.bytes, np.uint8, (last - first) * row_bytes, start).copy()
    values = dequantize(stored.reshape(last - first, row_bytes), tensor.kind)
    rows[first:last] = torch.from_numpy(values.reshape(last - first, -1))
