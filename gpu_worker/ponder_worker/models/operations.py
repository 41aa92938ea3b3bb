"""The operations between the matrix products of a layer: what they are, in torch, and as fused kernels.

`native` has them in C.
"""

from collections.abc import Sequence as Series
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from ponder_kernels import rms_norm, swiglu, write_kv, write_qkv
from ponder_worker.models.checkpoint.family import Activation
from ponder_worker.models.kv_pages import Pages

HeadNorms = tuple[torch.Tensor | None, torch.Tensor | None]
"""The weights `[head_dim]` of the norms of query and key heads, which come before the rotation."""


@dataclass(frozen=True, slots=True)
class ForwardContext:
    """The inputs of a step that all layers share.

    positions, slots: `[num_tokens]` int64. cosine, sine: float32 `[context_tokens, head_dim / 2]`. epsilon: the epsilon
    of all norms.
    """

    positions: torch.Tensor
    slots: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor
    epsilon: float


class Operations(Protocol):
    """The operations between matrix products, for one kind of device."""

    def add_and_normalise(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """Adds delta to hidden in place, and returns the RMS norm of the sum. All tensors are `[num_rows, width]`."""

    def rotate_and_write(
        self, qkv: torch.Tensor, pages: Pages, context: ForwardContext, norms: HeadNorms
    ) -> torch.Tensor:
        """Rotates queries and keys, and writes keys and values to their slots in the pages of one layer.

        qkv: `[num_rows, (num_heads + 2 * num_kv_heads) * head_dim]`, changed in place. Returns the queries,
        `[num_rows, num_heads, head_dim]`, as a view of qkv.
        """

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """Multiplies the activation of the first half by the second: `[num_rows, 2 * width]` to `[num_rows, width]`."""


class TorchOperations:
    """Operations for any device and dtype, made of torch's operators."""

    def __init__(self, activation: Activation = "silu") -> None:
        self._is_gelu = activation == "gelu"

    def add_and_normalise(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        return rms_norm.op(hidden, weight, epsilon) if delta is None else rms_norm.op(delta, weight, epsilon, hidden)

    def rotate_and_write(
        self, qkv: torch.Tensor, pages: Pages, context: ForwardContext, norms: HeadNorms
    ) -> torch.Tensor:
        num_kv_heads, head_dim = pages.numbers.shape[2], pages.numbers.shape[4]
        heads = qkv.view(len(qkv), -1, head_dim)
        num_heads = heads.shape[1] - 2 * num_kv_heads
        parts = heads[:, :num_heads], heads[:, num_heads : num_heads + num_kv_heads]
        for part, norm in zip(parts, norms, strict=True):
            if norm is not None:
                part.copy_(rms_norm.op(part.reshape(-1, head_dim), norm, context.epsilon).view(part.shape))
        tables = [table[context.positions, None].to(qkv.dtype) for table in (context.cosine, context.sine)]
        _rotate(heads[:, : num_heads + num_kv_heads], *tables)
        kv = heads[:, num_heads:].view(len(qkv), 2, num_kv_heads, head_dim)
        write_kv.op(kv, pages.numbers, context.slots, pages.scales)
        return parts[0]

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        gates, up = gate_up.chunk(2, dim=-1)
        activated = F.gelu(gates, approximate="tanh") if self._is_gelu else F.silu(gates)
        return activated.mul_(up)


class FusedOperations(TorchOperations):
    """Operations for a GPU, each of them a single kernel."""

    def rotate_and_write(
        self, qkv: torch.Tensor, pages: Pages, context: ForwardContext, norms: HeadNorms
    ) -> torch.Tensor:
        num_kv_heads, head_dim = pages.numbers.shape[2], pages.numbers.shape[4]
        heads = qkv.view(len(qkv), -1, head_dim)
        rotation = write_qkv.Rotation(context.positions, context.cosine, context.sine, *norms, epsilon=context.epsilon)
        write_qkv.op(heads, rotation, pages.numbers, context.slots, pages.scales)
        return heads[:, : heads.shape[1] - 2 * num_kv_heads]

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        return swiglu.op(gate_up, gelu=self._is_gelu)


def _rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> None:
    """Applies rotary positions in place (https://arxiv.org/abs/2104.09864), with halves paired as in Hugging Face.

    heads: `[num_tokens, num_heads, head_dim]`. cosine, sine: `[num_tokens, 1, head_dim / 2]`.
    """
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    rotated = first * cosine - second * sine
    second.mul_(cosine).add_(first * sine)
    first.copy_(rotated)


def normalise_rows(qkv: torch.Tensor, norms: Series[torch.Tensor], epsilon: float) -> None:
    """Normalises all queries of a row together, and all keys, in place.

    qkv: `[num_rows, (num_heads + 2 * num_kv_heads) * head_dim]`. norms: the weights for queries and for keys.
    """
    start = 0
    for norm in norms:
        part = qkv[:, start : start + len(norm)]
        part.copy_(rms_norm.op(part, norm, epsilon))
        start += len(norm)
