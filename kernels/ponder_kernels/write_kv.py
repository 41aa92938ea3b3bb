# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Scatter of a step's keys and values into their pages. Bound by memory: one read, one write an element.

A page is `[2, num_kv_heads, page_size, head_dim]`: keys, then values; a head's part of a page is contiguous.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


def op(kv: torch.Tensor, pages: torch.Tensor, slots: torch.Tensor) -> None:
    """Writes kv into pages at slots, in place.

    kv: `[num_tokens, 2, num_kv_heads, head_dim]`; pages: `[num_pages, 2, num_kv_heads, page_size, head_dim]`,
    contiguous; slots: `[num_tokens]` int64, page * page_size + offset, or -1 for a token that is not written.
    No two tokens of a step have the same slot.
    """
    if kv.is_cuda and triton is not None:
        op_triton(kv, pages, slots)
    else:
        op_reference(kv, pages, slots)


def op_reference(kv: torch.Tensor, pages: torch.Tensor, slots: torch.Tensor) -> None:
    page_size = pages.shape[3]
    written = slots >= 0
    if not bool(written.all()):
        kv, slots = kv[written], slots[written]
    pages[slots // page_size, :, :, slots % page_size] = kv


def op_triton(kv: torch.Tensor, pages: torch.Tensor, slots: torch.Tensor) -> None:
    num_tokens, _, num_kv_heads, head_dim = kv.shape
    if not num_tokens:
        return
    kernel[(num_tokens, 2 * num_kv_heads)](
        kv,
        pages,
        slots,
        *kv.stride()[:3],
        *pages.stride()[:4],
        pages.shape[3],
        num_kv_heads,
        head_dim,
        triton.next_power_of_2(head_dim),
    )


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        kv, pages, slots, kv_token, kv_kind, kv_head, page_stride, page_kind, page_head, page_slot,
        page_size, num_kv_heads, head_dim, BLOCK: tl.constexpr,
    ):  # fmt: skip
        token = tl.program_id(0).to(tl.int64)
        kind = tl.program_id(1) // num_kv_heads
        head = tl.program_id(1) % num_kv_heads
        slot = tl.load(slots + token)
        column = tl.arange(0, BLOCK)
        inside = column < head_dim
        if slot >= 0:
            value = tl.load(kv + token * kv_token + kind * kv_kind + head * kv_head + column, mask=inside)
            page = pages + (slot // page_size) * page_stride + kind * page_kind + head * page_head
            tl.store(page + (slot % page_size) * page_slot + column, value, mask=inside)
