# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Scatter of a step's keys and values into their pages.

A page is `[2, num_kv_heads, page_size, head_dim]`: keys, then values. A head's part of a page is contiguous. The kernel
is bound by memory: one read and one write an element.
"""

import torch
from torch import Tensor

from ponder_kernels import float8

try:
    import triton
    import triton.language as tl

    from ponder_kernels.float8 import to_fp8
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


def op(kv: Tensor, pages: Tensor, slots: Tensor, scales: Tensor | None = None) -> None:
    """Writes kv into pages at slots, in place.

    kv: `[num_tokens, 2, num_kv_heads, head_dim]`, with an even head_dim.
    pages: contiguous `[num_pages, 2, num_kv_heads, page_size, head_dim]` of the same dtype or float8_e4m3fn.
    slots: `[num_tokens]` int64, page * page_size + offset, or -1 for a token that is not written. No two tokens of a
    step have the same slot.
    scales: float32 `[num_pages, 2, num_kv_heads, page_size]`, written along with float8 pages.
    """
    run = op_triton if kv.is_cuda and triton is not None else op_reference
    run(kv, pages, slots, scales)


def op_reference(kv: Tensor, pages: Tensor, slots: Tensor, scales: Tensor | None = None) -> None:
    page_size = pages.shape[3]
    written = slots >= 0
    if not bool(written.all()):
        kv, slots = kv[written], slots[written]
    page, offset = slots // page_size, slots % page_size
    if scales is None:
        pages[page, :, :, offset] = kv.to(pages.dtype)
        return
    factor = (kv.float().abs().amax(-1) / float8.LARGEST).clamp_min(float8.LEAST_SCALE)
    scales[page, :, :, offset] = factor
    stored = (kv.float() / factor[..., None]).clamp(-float8.LARGEST, float8.LARGEST).to(torch.float8_e4m3fn)
    pages.view(torch.uint8)[page, :, :, offset] = stored.view(torch.uint8)


def op_triton(kv: Tensor, pages: Tensor, slots: Tensor, scales: Tensor | None = None) -> None:
    num_tokens, _, num_kv_heads, head_dim = kv.shape
    if num_tokens:
        kernel[num_tokens, 2 * num_kv_heads](
            kv, pages if scales is None else pages.view(torch.uint8), slots, slots if scales is None else scales,
            *kv.stride()[:3], pages.shape[3], num_kv_heads, head_dim // 2,
            FP8=scales is not None, BLOCK=triton.next_power_of_2(head_dim // 2), num_warps=1,
        )  # fmt: skip


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def scatter(  # type: ignore[no-untyped-def]
        first, second, column, inside, part, num_parts, slot, pages, scales, page_size, half, FP8: tl.constexpr
    ):
        """Writes the two halves of a head into its page. part: the head's index in a page, keys before values."""
        row = (slot // page_size * num_parts + part) * page_size + slot % page_size
        out = pages + row * (2 * half) + column
        if FP8:
            most = tl.maximum(tl.max(tl.abs(first)), tl.max(tl.abs(second)))
            factor = tl.maximum(most / 448.0, 1e-12 / 448.0)
            tl.store(scales + row, factor)
            first = to_fp8(tl.clamp(first / factor, -448.0, 448.0))
            second = to_fp8(tl.clamp(second / factor, -448.0, 448.0))
        tl.store(out, first.to(pages.dtype.element_ty), mask=inside)
        tl.store(out + half, second.to(pages.dtype.element_ty), mask=inside)

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        kv, pages, slots, scales, token_stride, kind_stride, head_stride, page_size, num_kv_heads, half,
        FP8: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """Writes the key or the value of one head of one token."""
        token = tl.program_id(0).to(tl.int64)
        part = tl.program_id(1)
        slot = tl.load(slots + token)
        if slot < 0:
            return
        column = tl.arange(0, BLOCK)
        inside = column < half
        at = kv + token * token_stride + part // num_kv_heads * kind_stride + part % num_kv_heads * head_stride + column
        first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
        scatter(first, second, column, inside, part, 2 * num_kv_heads, slot, pages, scales, page_size, half, FP8)
