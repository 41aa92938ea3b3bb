# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Rotary positions in place (https://arxiv.org/abs/2104.09864), halves as Hugging Face pairs them.

Bound by memory: one read, one write an element.
"""

import math
from dataclasses import dataclass

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Scaling", "op", "op_reference", "op_triton", "table"]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Llama 3's stretching of low frequencies: https://arxiv.org/abs/2407.21783, section 3.4.3."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_tokens: int


def table(
    num_positions: int, head_dim: int, theta: float, scaling: Scaling | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each float32 `[num_positions, head_dim / 2]`."""
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    if scaling is not None:
        turns = scaling.original_context_tokens * frequency / (2 * math.pi)
        span = scaling.high_frequency_factor - scaling.low_frequency_factor
        keep = ((turns - scaling.low_frequency_factor) / span).clamp(0.0, 1.0)
        frequency = frequency * keep + frequency / scaling.factor * (1 - keep)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()


def op(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, positions: torch.Tensor) -> None:
    """heads: `[num_tokens, num_heads, head_dim]`, turned in place; cosine, sine: `table`'s, of any dtype; positions:
    `[num_tokens]` int64
    """
    run = op_triton if heads.is_cuda and triton is not None else op_reference
    run(heads, cosine, sine, positions)


def op_reference(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, positions: torch.Tensor) -> None:
    cos, sin = (part[positions].float()[:, None] for part in (cosine, sine))
    first, second = heads.float().chunk(2, dim=-1)
    heads.copy_(torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1))


def op_triton(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, positions: torch.Tensor) -> None:
    num_tokens, num_heads, head_dim = heads.shape
    if num_tokens:
        kernel[num_tokens, num_heads](
            heads, cosine, sine, positions, heads.stride(0), heads.stride(1), head_dim // 2,
            BLOCK=triton.next_power_of_2(head_dim // 2), num_warps=1,
        )  # fmt: skip


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        heads, cosine, sine, positions, token_stride, head_stride, half, BLOCK: tl.constexpr
    ):
        token = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, BLOCK)
        inside = column < half
        place = tl.load(positions + token) * half + column
        cos = tl.load(cosine + place, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sine + place, mask=inside, other=0.0).to(tl.float32)
        at = heads + token * token_stride + tl.program_id(1) * head_stride + column
        first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
        tl.store(at, (first * cos - second * sin).to(heads.dtype.element_ty), mask=inside)
        tl.store(at + half, (second * cos + first * sin).to(heads.dtype.element_ty), mask=inside)
