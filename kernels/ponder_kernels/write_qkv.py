# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Norm, rotation and scatter of a step's heads in one pass. Bound by memory: one read, one write an element.

Queries are turned in place; keys and values go into their pages and are left as they were.
"""

import torch
import torch.nn.functional as F

from ponder_kernels import rope

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


def op(
    heads: torch.Tensor,
    pages: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    *,
    query_norm: torch.Tensor | None = None,
    key_norm: torch.Tensor | None = None,
    epsilon: float = 1e-6,
    scales: torch.Tensor | None = None,
) -> None:
    """heads: `[num_tokens, num_heads + 2 * num_kv_heads, head_dim]`: queries, keys, values; pages: `[num_pages, 2,
    num_kv_heads, page_size, head_dim]` contiguous, of the same dtype or float8_e4m3fn; slots: `[num_tokens]` int64,
    page * page_size + offset, or -1 for a token that is not written; positions: `[num_tokens]` int64; cosine, sine:
    `rope.table`'s; query_norm, key_norm: `[head_dim]`, both or none, the weights of an RMS norm of each head before it
    is turned; scales: `[num_pages, 2, num_kv_heads, page_size]` float32, written where pages are float8.
    """
    run = op_triton if heads.is_cuda and triton is not None else op_reference
    run(
        heads, pages, slots, positions, cosine, sine,
        query_norm=query_norm, key_norm=key_norm, epsilon=epsilon, scales=scales,
    )  # fmt: skip


def op_reference(
    heads: torch.Tensor,
    pages: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    *,
    query_norm: torch.Tensor | None = None,
    key_norm: torch.Tensor | None = None,
    epsilon: float = 1e-6,
    scales: torch.Tensor | None = None,
) -> None:
    num_kv_heads, page_size = pages.shape[2:4]
    num_heads = heads.shape[1] - 2 * num_kv_heads
    q, k, v = torch.split(heads.float(), [num_heads, num_kv_heads, num_kv_heads], dim=1)
    if query_norm is not None and key_norm is not None:
        q = F.rms_norm(q, q.shape[-1:], query_norm.float(), epsilon)
        k = F.rms_norm(k, k.shape[-1:], key_norm.float(), epsilon)
    q, k = q.clone(), k.clone()
    rope.op_reference(q, cosine, sine, positions)
    rope.op_reference(k, cosine, sine, positions)
    heads[:, :num_heads] = q
    written = slots >= 0
    kv, slots = torch.stack([k, v], dim=1)[written], slots[written]
    page, offset = slots // page_size, slots % page_size
    if scales is None:
        pages[page, :, :, offset] = kv.to(pages.dtype)
        return
    factor = kv.abs().amax(-1).clamp_min(1e-12) / FP8_MAX
    scales[page, :, :, offset] = factor
    stored = (kv / factor[..., None]).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    pages.view(torch.uint8)[page, :, :, offset] = stored.view(torch.uint8)


def op_triton(
    heads: torch.Tensor,
    pages: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    *,
    query_norm: torch.Tensor | None = None,
    key_norm: torch.Tensor | None = None,
    epsilon: float = 1e-6,
    scales: torch.Tensor | None = None,
) -> None:
    num_tokens, all_heads, head_dim = heads.shape
    num_kv_heads, page_size = pages.shape[2:4]
    if not num_tokens:
        return
    kernel[num_tokens, all_heads](
        heads, pages.view(torch.uint8) if scales is not None else pages, slots, positions, cosine, sine,
        cosine if query_norm is None else query_norm, cosine if key_norm is None else key_norm,
        cosine if scales is None else scales, epsilon, heads.stride(0), heads.stride(1),
        all_heads - 2 * num_kv_heads, num_kv_heads, page_size, head_dim // 2,
        NORM=query_norm is not None, FP8=scales is not None, BLOCK=triton.next_power_of_2(head_dim // 2), num_warps=1,
    )  # fmt: skip


if triton is not None:

    @triton.jit
    def to_fp8(value):  # type: ignore[no-untyped-def]
        """The bits of float8_e4m3fn, nearest even, of float32 numbers within 448: needs no fp8 unit."""
        bits = value.to(tl.uint32, bitcast=True)
        sign = (bits >> 24) & 0x80
        size = tl.abs(value)
        magnitude = bits & 0x7FFFFFFF
        even = (magnitude >> 20) & 1
        normal = ((magnitude + 0x7FFFF + even) >> 20) - ((127 - 7) << 3)
        # below 2^-6 steps are of 2^-9: adding 2^14 makes float32 round at that step
        small = (size + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
        return (sign | tl.where(size < 0.015625, small, normal)).to(tl.uint8)

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        heads, pages, slots, positions, cosine, sine, query_norm, key_norm, scales, epsilon, token_stride, head_stride,
        num_heads, num_kv_heads, page_size, half, NORM: tl.constexpr, FP8: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """One program: one head of one token, as two halves."""
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
            turned = first * cos - second * sin
            second = second * cos + first * sin
            first = turned
        if head < num_heads:
            tl.store(at, first.to(heads.dtype.element_ty), mask=inside)
            tl.store(at + half, second.to(heads.dtype.element_ty), mask=inside)
        else:
            slot = tl.load(slots + token)
            if slot >= 0:
                part = head - num_heads  # keys of all heads, then values: as a page has them
                row = (slot // page_size * (2 * num_kv_heads) + part) * page_size + slot % page_size
                out = pages + row * (2 * half) + column
                if FP8:
                    most = tl.maximum(tl.max(tl.abs(first)), tl.max(tl.abs(second)))
                    factor = tl.maximum(most, 1e-12) / 448.0
                    tl.store(scales + row, factor)
                    tl.store(out, to_fp8(tl.clamp(first / factor, -448.0, 448.0)), mask=inside)
                    tl.store(out + half, to_fp8(tl.clamp(second / factor, -448.0, 448.0)), mask=inside)
                else:
                    tl.store(out, first.to(pages.dtype.element_ty), mask=inside)
                    tl.store(out + half, second.to(pages.dtype.element_ty), mask=inside)
