# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Norm, rotation and scatter of a step's heads in one pass.

Queries are rotated in place. Keys and values are written into their pages, and stay unchanged where they were. The
kernel is bound by memory: one read and one write an element.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ponder_kernels import write_kv

try:
    import triton
    import triton.language as tl

    from ponder_kernels.write_kv import scatter
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Rotation", "op", "op_reference", "op_triton"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary positions of a step (https://arxiv.org/abs/2104.09864), and the norms that precede them.

    positions: `[num_tokens]` int64. cosine, sine: `[num_positions, head_dim / 2]`, of any dtype. query_norm, key_norm:
    `[head_dim]`, the weights of an RMS norm of each head, of any dtype; both or neither.
    """

    positions: Tensor
    cosine: Tensor
    sine: Tensor
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    epsilon: float = 1e-6


def op(heads: Tensor, rotation: Rotation, pages: Tensor, slots: Tensor, scales: Tensor | None = None) -> None:
    """Normalises and rotates queries and keys, and writes keys and values into pages, all in place.

    heads: `[num_tokens, num_heads + 2 * num_kv_heads, head_dim]`: queries, then keys, then values. The arguments pages,
    slots and scales are those of `write_kv.op`.
    """
    run = op_triton if heads.is_cuda and triton is not None else op_reference
    run(heads, rotation, pages, slots, scales)


def op_reference(heads: Tensor, rotation: Rotation, pages: Tensor, slots: Tensor, scales: Tensor | None = None) -> None:
    num_kv_heads = pages.shape[2]
    num_heads = heads.shape[1] - 2 * num_kv_heads
    q, k, v = torch.split(heads.float(), [num_heads, num_kv_heads, num_kv_heads], dim=1)
    if rotation.query_norm is not None and rotation.key_norm is not None:
        q = F.rms_norm(q, q.shape[-1:], rotation.query_norm.float(), rotation.epsilon)
        k = F.rms_norm(k, k.shape[-1:], rotation.key_norm.float(), rotation.epsilon)
    heads[:, :num_heads] = _rotated(q, rotation)
    write_kv.op_reference(torch.stack([_rotated(k, rotation), v], dim=1), pages, slots, scales)


def _rotated(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotates float32 heads `[num_tokens, num_heads, head_dim]`, with halves paired as Hugging Face pairs them."""
    cos, sin = (part[rotation.positions].float()[:, None] for part in (rotation.cosine, rotation.sine))
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def op_triton(heads: Tensor, rotation: Rotation, pages: Tensor, slots: Tensor, scales: Tensor | None = None) -> None:
    num_tokens, all_heads, head_dim = heads.shape
    num_kv_heads, page_size = pages.shape[2:4]
    norms = [rotation.cosine if norm is None else norm for norm in (rotation.query_norm, rotation.key_norm)]
    if num_tokens:
        kernel[num_tokens, all_heads](
            heads, pages if scales is None else pages.view(torch.uint8), slots, rotation.positions, rotation.cosine,
            rotation.sine, *norms, slots if scales is None else scales, rotation.epsilon, heads.stride(0),
            heads.stride(1), all_heads - 2 * num_kv_heads, num_kv_heads, page_size, head_dim // 2,
            NORM=rotation.query_norm is not None, FP8=scales is not None, BLOCK=triton.next_power_of_2(head_dim // 2),
            num_warps=1,
        )  # fmt: skip


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        heads, pages, slots, positions, cosine, sine, query_norm, key_norm, scales, epsilon, token_stride, head_stride,
        num_heads, num_kv_heads, page_size, half, NORM: tl.constexpr, FP8: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """Process one head of one token, as two halves."""
        token = tl.program_id(0).to(tl.int64)
        head = tl.program_id(1)
        column = tl.arange(0, BLOCK)
        inside = column < half
        at = heads + token * token_stride + head * head_stride + column
        first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
        if head < num_heads + num_kv_heads:
            if NORM:
                weight = key_norm + column
                if head < num_heads:
                    weight = query_norm + column
                per = tl.rsqrt((tl.sum(first * first) + tl.sum(second * second)) / (2 * half) + epsilon)
                first *= per * tl.load(weight, mask=inside, other=0.0).to(tl.float32)
                second *= per * tl.load(weight + half, mask=inside, other=0.0).to(tl.float32)
            place = tl.load(positions + token) * half + column
            cos = tl.load(cosine + place, mask=inside, other=0.0).to(tl.float32)
            sin = tl.load(sine + place, mask=inside, other=0.0).to(tl.float32)
            rotated = first * cos - second * sin
            second = second * cos + first * sin
            first = rotated
        if head < num_heads:
            tl.store(at, first.to(heads.dtype.element_ty), mask=inside)
            tl.store(at + half, second.to(heads.dtype.element_ty), mask=inside)
            return
        slot = tl.load(slots + token)
        if slot < 0:
            return
        part = head - num_heads
        scatter(first, second, column, inside, part, 2 * num_kv_heads, slot, pages, scales, page_size, half, FP8)
