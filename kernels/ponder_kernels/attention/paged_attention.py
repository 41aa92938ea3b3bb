# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Causal attention of a step's queries over paged keys and values, for decode and chunked prefill alike.

Decode is bound by memory: every key and value is read once a step, and a shared one once for all sequences that share
it. Prefill of more than about a hundred queries a sequence is bound by the matrix rate. The softmax is computed leaf by
leaf (attention_plan.py), and its parts are merged (fold.py).
"""

import torch
from torch import Tensor

from ponder_kernels.attention import fold, reference
from ponder_kernels.attention.layout import Layout, layout
from ponder_kernels.attention.reference import FP8
from ponder_kernels.attention.tiles import launch_options, narrow_rows, wide_rows

try:
    import triton
    import triton.language as tl

    from ponder_kernels.attention.fold import merge
    from ponder_kernels.float8 import from_fp8
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Layout", "layout", "op", "op_reference", "op_triton"]

UNSEEN = 1 << 30
LOG2_E = 1.4426950408889634


def op(
    q: Tensor, pages: Tensor, layout: Layout, scale: float, *, soft_cap: float = 0.0, scales: Tensor | None = None
) -> Tensor:
    """Attends from every query to the keys that it may see. Returns `[num_tokens, num_heads, head_dim]`.

    q: `[num_tokens, num_heads, head_dim]`. pages: contiguous `[num_pages, 2, num_kv_heads, page_size, head_dim]` in q's
    dtype or float8_e4m3fn. They must be finite everywhere, because masked values are multiplied by zero.
    scale: the factor of q @ k. soft_cap: the c of c * tanh(score / c), or 0 for no cap.
    scales: float32 `[num_pages, 2, num_kv_heads, page_size]`, the factors of float8 numbers; None for other dtypes.
    """
    run = op_triton if q.is_cuda and triton is not None else op_reference
    return run(q, pages, layout, scale, soft_cap=soft_cap, scales=scales)


def op_reference(
    q: Tensor, pages: Tensor, layout: Layout, scale: float, *, soft_cap: float = 0.0, scales: Tensor | None = None
) -> Tensor:
    assert layout.reference is not None, "this layout was made for pages on a GPU"
    return reference.attend(q, pages, layout.reference, scale, soft_cap=soft_cap, scales=scales)


def op_triton(
    q: Tensor, pages: Tensor, layout: Layout, scale: float, *, soft_cap: float = 0.0, scales: Tensor | None = None
) -> Tensor:
    plan = layout.plan
    assert plan is not None, "this layout was made for pages on the CPU"
    num_heads, head_dim = q.shape[1:]
    num_kv_heads, page_size = pages.shape[2:4]
    num_groups = num_heads // num_kv_heads
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    partials = torch.empty((plan.num_slots, num_heads, head_dim), dtype=torch.float32, device=q.device)
    masses = torch.empty((plan.num_slots, num_heads), dtype=torch.float32, device=q.device)
    raw = pages.view(torch.uint8) if pages.dtype == FP8 else pages
    block_dim = triton.next_power_of_2(head_dim)
    tiles = (plan.wide, wide_rows(num_groups, plan.tile_queries)), (plan.narrow, narrow_rows(num_groups))
    for items, block_rows in tiles:
        if len(items):
            kernel[len(items), num_kv_heads](
                q, raw, out, partials, masses, masses if scales is None else scales, items, plan.tokens, plan.positions,
                plan.page_table, scale * (1.0 if soft_cap else LOG2_E), soft_cap, layout.window or UNSEEN,
                q.stride(0), q.stride(1), out.stride(0), out.stride(1), plan.page_table.stride(0),
                NUM_KV_HEADS=num_kv_heads, NUM_GROUPS=num_groups, HEAD_DIM=head_dim, SOFT_CAP=soft_cap > 0,
                FP8=scales is not None, PAGE_SIZE=page_size, BLOCK_DIM=block_dim, BLOCK_ROWS=block_rows,
                LEAF=plan.leaf_tokens, LEAVES=plan.leaves_per_block,
                **launch_options(block_rows, block_dim, q.element_size(), fp8=scales is not None),
            )  # fmt: skip
    if len(plan.fold_queries):
        fold.kernel[len(plan.fold_queries), num_kv_heads](
            partials, masses, out, plan.fold_queries, plan.fold_starts, plan.entries, plan.tokens,
            out.stride(0), out.stride(1), num_heads, num_groups, head_dim,
            BLOCK_HEADS=triton.next_power_of_2(num_groups), BLOCK_DIM=block_dim, num_warps=1,
        )  # fmt: skip
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def attend(  # type: ignore[no-untyped-def]
        queries, position, low, end, leaf, pages, scales, table, kv_head, scale, soft_cap, window,
        NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, SOFT_CAP: tl.constexpr, FP8: tl.constexpr,
        PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr, LEAF: tl.constexpr,
    ):  # fmt: skip
        """Normalised result of one leaf, `[BLOCK_ROWS, BLOCK_DIM]`, and its log2-sum-exp2, `[BLOCK_ROWS]`."""
        key = leaf * LEAF + tl.arange(0, LEAF)
        known = (key >= low) & (key < end)
        page = tl.load(table + key // PAGE_SIZE, mask=known, other=0).to(tl.int64)
        place = (page * (2 * NUM_KV_HEADS) + kv_head) * PAGE_SIZE + key % PAGE_SIZE  # counted in vectors of HEAD_DIM
        column = tl.arange(0, BLOCK_DIM)
        at = pages + (place * HEAD_DIM)[:, None] + column
        mask = known[:, None] if HEAD_DIM == BLOCK_DIM else known[:, None] & (column < HEAD_DIM)
        keys = tl.load(at, mask=mask, other=0)
        values = tl.load(at + NUM_KV_HEADS * PAGE_SIZE * HEAD_DIM, mask=mask, other=0)
        if FP8:
            key_scale = tl.load(scales + place, mask=known, other=0.0) * 256.0
            value_scale = tl.load(scales + place + NUM_KV_HEADS * PAGE_SIZE, mask=known, other=0.0) * 256.0
            keys = from_fp8(keys, queries.dtype)
            values = from_fp8(values, queries.dtype)
        score = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        if FP8:
            score *= key_scale[None, :]
        if SOFT_CAP:  # tanh(x) = 1 - 2 / (exp(2 x) + 1)
            score = soft_cap * (1.0 - 2.0 / (tl.exp2(score * (2.0 * 1.4426950408889634 / soft_cap)) + 1.0))
            score *= 1.4426950408889634
        seen = known & (key <= position[:, None]) & (key > position[:, None] - window)
        score = tl.where(seen, score, float("-inf"))
        peak = tl.max(score, 1)
        base = tl.where(peak == float("-inf"), 0.0, peak)
        share = tl.exp2(score - base[:, None])
        total = tl.sum(share, 1)
        some = total > 0
        if FP8:
            share *= value_scale[None, :]
        mixed = tl.dot(share.to(queries.dtype), values, input_precision="ieee")
        total_or_1 = tl.where(some, total, 1.0)
        mass = tl.where(some, base + tl.log2(total_or_1), float("-inf"))
        return mixed * (1.0 / total_or_1)[:, None], mass

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        q, pages, out, partials, masses, scales, items, tokens, positions, page_table, scale, soft_cap, window,
        q_token, q_head, out_token, out_head, table_stride,
        NUM_KV_HEADS: tl.constexpr, NUM_GROUPS: tl.constexpr, HEAD_DIM: tl.constexpr, SOFT_CAP: tl.constexpr,
        FP8: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        LEAF: tl.constexpr, LEAVES: tl.constexpr,
    ):  # fmt: skip
        """Computes one work item for one kv head. A row is a (query, head) pair."""
        item = items + tl.program_id(0) * 6
        num_queries = tl.load(item + 4)
        if num_queries == 0:  # padding of a static buffer
            return
        kv_head = tl.program_id(1)
        table = page_table + tl.load(item).to(tl.int64) * table_stride
        first_leaf = tl.load(item + 1)
        first_query = tl.load(item + 3)
        slot = tl.load(item + 5)
        row = tl.arange(0, BLOCK_ROWS)
        query = row // NUM_GROUPS
        alive = query < num_queries
        head = kv_head * NUM_GROUPS + row % NUM_GROUPS
        token = tl.load(tokens + first_query + query, mask=alive, other=0).to(tl.int64)
        position = tl.load(positions + first_query + query, mask=alive, other=-1)
        end = tl.max(position, 0) + 1
        end_leaf = tl.minimum(tl.load(item + 2), (end + LEAF - 1) // LEAF)
        low = tl.min(tl.where(alive, position, 1 << 30), 0) - window + 1
        column = tl.arange(0, BLOCK_DIM)
        mask = alive[:, None] & (column < HEAD_DIM)
        queries = tl.load(q + token[:, None] * q_token + head[:, None] * q_head + column, mask=mask, other=0.0)
        total = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
        total_mass = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
        for first in range(first_leaf // LEAVES * LEAVES, end_leaf, LEAVES):
            block = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
            block_mass = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
            for leaf in range(tl.maximum(first, first_leaf), tl.minimum(first + LEAVES, end_leaf)):
                mixed, mass = attend(
                    queries, position, low, end, leaf, pages, scales, table, kv_head, scale, soft_cap, window,
                    NUM_KV_HEADS, HEAD_DIM, SOFT_CAP, FP8, PAGE_SIZE, BLOCK_DIM, LEAF,
                )  # fmt: skip
                block, block_mass = merge(block, block_mass, mixed, mass)
            total, total_mass = merge(total, total_mass, block, block_mass)
        if slot < 0:
            place = out + token[:, None] * out_token + head[:, None] * out_head + column
            tl.store(place, total.to(out.dtype.element_ty), mask=mask)
        else:
            index = (slot + query).to(tl.int64) * (NUM_KV_HEADS * NUM_GROUPS) + head
            tl.store(partials + index[:, None] * HEAD_DIM + column, total, mask=mask)
            tl.store(masses + index, total_mass, mask=alive)
