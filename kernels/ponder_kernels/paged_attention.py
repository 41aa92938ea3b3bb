# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Causal attention of a step's queries over keys and values that stand in pages; decode and chunked prefill alike.

Decode is bound by memory (every key and value once a step, a shared one once a family), prefill of more than about a
hundred queries a sequence by the matrix rate. Softmax is taken leaf by leaf (attention_plan.py) and its parts merged by
their log-sum-exp, in base 2: https://arxiv.org/abs/2205.14135, https://flashinfer.ai/2024/02/02/cascade-inference.html.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ponder_kernels.attention_plan import LEAF_TOKENS, LEAVES_PER_BLOCK, Plan, plan

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Group", "Layout", "Work", "layout", "op", "op_reference", "op_triton"]

GROUP_BYTES = 1 << 21  # what the reference gathers at once; it pays to stay within a core's second cache
UNSEEN = 1 << 30
LOG2_E = 1.4426950408889634
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of about one length, padded to a rectangle: what the reference computes at once.

    tokens: `[num_sequences, num_queries]` rows of the step, padding repeats the last one; parts: `[num_sequences * 2 *
    num_kv_heads * num_pages]`, a head's part of a page each, heads outermost, so that gathered keys of a head are
    contiguous; mask: `[num_sequences, num_queries, num_pages * page_size]`, 0 or -inf
    """

    tokens: torch.Tensor
    parts: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """A Plan on the device, what the kernels take; the names are the Plan's. Its tensors are parts of one, int32."""

    narrow: torch.Tensor
    wide: torch.Tensor
    narrow_direct: torch.Tensor
    wide_direct: torch.Tensor
    tokens: torch.Tensor
    positions: torch.Tensor
    fold_queries: torch.Tensor
    fold_starts: torch.Tensor
    entries: torch.Tensor
    page_table: torch.Tensor
    num_slots: int
    leaf_tokens: int
    leaves_per_block: int
    tile_queries: int
    narrow_rows: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the queries and keys of a step stand; one a step serves all layers of the same window.

    window: tokens that a query sees, itself included; 0 for all. work: for the kernels. For the reference: order, rows
    of the step as the groups take them; places: `[num_tokens]`, where each row stands in that order.
    """

    window: int
    work: Work | None
    groups: tuple[Group, ...] = ()
    order: torch.Tensor | None = None
    places: torch.Tensor | None = None


def layout(
    query_lengths: torch.Tensor,
    context_lengths: torch.Tensor,
    page_table: torch.Tensor,
    *,
    pages: torch.Tensor,
    num_heads: int | None = None,
    window: int = 0,
    share: bool = True,
    batch_invariant: bool = False,
    leaf_tokens: int = LEAF_TOKENS,
    leaves_per_block: int = LEAVES_PER_BLOCK,
    for_kernel: bool | None = None,
) -> Layout:
    """From int64 tensors on the CPU: `[num_sequences]`, `[num_sequences]`, `[num_sequences, max_pages]`.

    pages: one layer's, as `op` takes them; of these only shape, dtype and device are looked at. Entries of the page
    table that no query sees may be anything on a GPU, 0 or more or -1 for the reference. num_heads: of the queries,
    where known, for the best shape of the kernels' tiles. share: read a page that several sequences name once.
    batch_invariant: a sequence has the same bits in whatever company (every tile has the same shape). for_kernel: for
    `op_triton` or for `op_reference`; None goes by the pages' device.
    """
    if for_kernel or (for_kernel is None and pages.is_cuda and triton is not None):
        num_groups = 4 if num_heads is None else num_heads // pages.shape[2]
        tile_queries = max(1, (64 if pages.shape[4] <= 128 else 32) // num_groups)
        planned = plan(
            query_lengths.numpy(), context_lengths.numpy(), page_table.numpy(), pages.shape[3],
            tile_queries=tile_queries, window=window, share=share, narrow=not batch_invariant,
            leaf_tokens=leaf_tokens, leaves_per_block=leaves_per_block,
        )  # fmt: skip
        return Layout(window, work_of(planned, page_table, pages.device, tile_queries, not batch_invariant))
    starts = F.pad(query_lengths.cumsum(0), (1, 0))
    counts = (context_lengths + pages.shape[3] - 1) // pages.shape[3]
    rows = _cut(query_lengths.tolist(), counts.tolist(), GROUP_BYTES // (pages[0].numel() * pages.element_size()))
    groups = tuple(_group(row, starts, query_lengths, context_lengths, page_table, pages, window) for row in rows)
    order = torch.cat([group.tokens.view(-1) for group in groups])
    places = torch.empty(int(starts[-1]), dtype=torch.int64, device=pages.device)
    places[order] = torch.arange(len(order), device=pages.device)
    return Layout(window, None, groups, order, places)


def work_of(
    planned: Plan, page_table: torch.Tensor, device: torch.device, tile_queries: int, narrow_rows: bool
) -> Work:
    """One copy to the device, however many parts."""
    parts = [
        planned.narrow, planned.wide, planned.narrow_direct, planned.wide_direct, planned.tokens, planned.positions,
        planned.fold_queries, planned.fold_starts, planned.entries, page_table.numpy().astype(np.int32),
    ]  # fmt: skip
    flat = torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts])).to(device)
    pieces = torch.split(flat, [part.size for part in parts])
    views = [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
    narrow, wide, narrow_direct, wide_direct, tokens, positions, fold_queries, fold_starts, entries, table = views
    return Work(
        narrow, wide, narrow_direct, wide_direct, tokens, positions, fold_queries, fold_starts, entries, table,
        planned.num_slots, planned.leaf_tokens, planned.leaves_per_block, tile_queries, narrow_rows,
    )  # fmt: skip


def _cut(queries: list[int], pages: list[int], most: int) -> list[list[int]]:
    """Sequences in groups of at most so many pages in which padding adds little: queries within a power of two,
    pages within 0.6.
    """
    keys = [((length - 1).bit_length(), num_pages) for length, num_pages in zip(queries, pages, strict=True)]
    groups: list[list[int]] = []
    rung, floor, room = -1, 0.0, 0
    for index in sorted(range(len(keys)), key=keys.__getitem__, reverse=True):
        if keys[index][0] != rung or keys[index][1] < floor or not room:
            rung, widest = keys[index]
            floor, room = 0.6 * widest - 2, max(1, most // widest)
            groups.append([])
        groups[-1].append(index)
        room -= 1
    return groups


def _group(
    rows: list[int],
    starts: torch.Tensor,
    queries: torch.Tensor,
    contexts: torch.Tensor,
    table: torch.Tensor,
    pages: torch.Tensor,
    window: int,
) -> Group:
    row = torch.tensor(rows)
    length, context = queries[row, None], contexts[row, None]
    num_parts, page_size = 2 * pages.shape[2], pages.shape[3]
    num_pages = (int(context.max()) + page_size - 1) // page_size
    parts = table[row, None, :num_pages].clamp_min(0) * num_parts + torch.arange(num_parts)[:, None]
    step = torch.minimum(torch.arange(int(length.max())), length - 1)
    position = context - length + step
    key = torch.arange(num_pages * page_size)
    hidden = key > position[:, :, None]
    if window:
        hidden |= key <= position[:, :, None] - window
    dtype = torch.float32 if pages.dtype == FP8 else pages.dtype
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
    return Group(*(tensor.to(pages.device) for tensor in (starts[row, None] + step, parts.view(-1), mask)))


def op(
    q: torch.Tensor,
    pages: torch.Tensor,
    where: Layout,
    scale: float,
    *,
    soft_cap: float = 0.0,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """q: `[num_tokens, num_heads, head_dim]`, pages: `[num_pages, 2, num_kv_heads, page_size, head_dim]` contiguous,
    of q's dtype or float8_e4m3fn; scale: what q @ k is multiplied by; soft_cap: c of c * tanh(score / c), 0 for none;
    scales: `[num_pages, 2, num_kv_heads, page_size]` float32, what float8 numbers are multiplied by
    -> `[num_tokens, num_heads, head_dim]`. Pages must hold finite numbers everywhere: what is masked is multiplied by
    zero.
    """
    run = op_triton if q.is_cuda and triton is not None else op_reference
    return run(q, pages, where, scale, soft_cap=soft_cap, scales=scales)


def op_reference(
    q: torch.Tensor,
    pages: torch.Tensor,
    where: Layout,
    scale: float,
    *,
    soft_cap: float = 0.0,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    num_kv_heads, page_size, head_dim = pages.shape[2:]
    assert where.order is not None, "the layout was made for pages on a GPU"
    assert where.places is not None
    by_part = (pages.view(torch.uint8) if pages.dtype == FP8 else pages).view(-1, page_size * head_dim)
    ordered = q.index_select(0, where.order)
    out, start = [], 0
    for group in where.groups:
        b, num_queries = group.tokens.shape
        end = start + b * num_queries
        kv = by_part.index_select(0, group.parts)
        if scales is not None:
            factor = scales.view(-1, page_size, 1).index_select(0, group.parts)
            kv = (kv.view(FP8).view(-1, page_size, head_dim).float() * factor).to(q.dtype)
        kv = kv.view(b, 2, num_kv_heads, -1, head_dim)
        rows = ordered[start:end].view(b, num_queries, -1, head_dim)
        mask = group.mask.to(q.dtype)
        if soft_cap:
            mixed = _attend_capped(rows, kv[:, 0], kv[:, 1], mask, scale, soft_cap)
        else:
            attend = _attend_decode if num_queries == 1 else _attend_prefill
            mixed = attend(rows, kv[:, 0], kv[:, 1], mask, scale)
        out.append(mixed.reshape(b * num_queries, -1, head_dim))
        start = end
    return torch.cat(out).index_select(0, where.places)


def _attend_capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, soft_cap: float
) -> torch.Tensor:
    """In float32, with all scores at once: torch's fused attention has no cap."""
    b, num_queries, _, head_dim = q.shape
    rows = q.view(b, num_queries, k.shape[1], -1, head_dim).permute(0, 2, 3, 1, 4).float()
    score = rows @ k[:, :, None].float().transpose(-1, -2) * scale
    share = (soft_cap * (score / soft_cap).tanh() + mask[:, None, None].float()).softmax(-1)
    return (share @ v[:, :, None].float()).permute(0, 3, 1, 2, 4).to(q.dtype)


def _attend_decode(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """The query heads of one kv head stand as its rows, so that its keys are read once for all of them."""
    b, head_dim = len(q), q.shape[-1]
    num_kv_heads, num_keys = k.shape[1:3]
    rows = q.view(b, num_kv_heads, -1, head_dim)
    wide = mask.view(b, 1, 1, num_keys).expand(b, 1, rows.shape[2], num_keys)
    return F.scaled_dot_product_attention(rows, k, v, attn_mask=wide, scale=scale)


def _attend_prefill(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """A kv head stands in the place of a sequence and its query heads in that of heads, over keys of stride 0."""
    b, num_queries, num_heads, head_dim = q.shape
    num_kv_heads, num_keys = k.shape[1:3]
    fold = b * num_kv_heads
    num_groups = num_heads // num_kv_heads
    rows = q.transpose(1, 2).reshape(fold, num_groups, num_queries, head_dim)
    shared = (fold, num_groups, num_keys, head_dim)
    keys = k.reshape(fold, 1, num_keys, head_dim).expand(shared)
    values = v.reshape(fold, 1, num_keys, head_dim).expand(shared)
    wide = mask[:, None].expand(b, num_kv_heads, num_queries, num_keys).reshape(fold, 1, num_queries, num_keys)
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=wide, scale=scale)
    return out.reshape(b, num_heads, num_queries, head_dim).transpose(1, 2)


def op_triton(
    q: torch.Tensor,
    pages: torch.Tensor,
    where: Layout,
    scale: float,
    *,
    soft_cap: float = 0.0,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    work = where.work
    assert work is not None, "the layout was made for pages on the CPU"
    num_heads, head_dim = q.shape[1:]
    num_kv_heads, page_size = pages.shape[2:4]
    num_groups = num_heads // num_kv_heads
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    partials = torch.empty((work.num_slots, num_heads, head_dim), dtype=torch.float32, device=q.device)
    masses = torch.empty((work.num_slots, num_heads), dtype=torch.float32, device=q.device)
    wide_rows = max(16, triton.next_power_of_2(num_groups * work.tile_queries))
    rows = max(16, triton.next_power_of_2(num_groups)) if work.narrow_rows else wide_rows
    raw = pages.view(torch.uint8) if pages.dtype == FP8 else pages
    block_dim = triton.next_power_of_2(head_dim)
    for items, block_rows, direct in (
        (work.narrow, rows, False),
        (work.wide, wide_rows, False),
        (work.wide_direct, wide_rows, True),
        (work.narrow_direct, rows, True),
    ):
        if len(items):
            kernel[len(items), num_kv_heads](
                q, raw, out, partials, masses, masses if scales is None else scales, items, work.tokens, work.positions,
                work.page_table, scale * (1.0 if soft_cap else LOG2_E), soft_cap, where.window or UNSEEN,
                q.stride(0), q.stride(1), out.stride(0), out.stride(1),
                work.page_table.stride(0),
                NUM_KV_HEADS=num_kv_heads, NUM_GROUPS=num_groups, HEAD_DIM=head_dim,
                SOFT_CAP=soft_cap > 0, FP8=scales is not None, DIRECT=direct, PAGE_SIZE=page_size, BLOCK_DIM=block_dim,
                BLOCK_ROWS=block_rows, LEAF=work.leaf_tokens, LEAVES=work.leaves_per_block,
                **options(block_rows, block_dim),
            )  # fmt: skip
    if len(work.fold_queries):
        fold_kernel[len(work.fold_queries), num_kv_heads](
            partials, masses, out, work.fold_queries, work.fold_starts, work.entries, work.tokens,
            out.stride(0), out.stride(1), num_heads, num_groups, head_dim,
            BLOCK_HEADS=triton.next_power_of_2(num_groups), BLOCK_DIM=block_dim, num_warps=1,
        )  # fmt: skip
    return out


def options(block_rows: int, block_dim: int) -> dict[str, int]:
    """How a tile is spread over a program: tests/kernels/test_compile.py holds what it compiles to."""
    return {"num_warps": 8 if block_rows * block_dim >= 64 * 64 else 4, "num_stages": 2}


if triton is not None:

    @triton.jit
    def merge(a, a_mass, b, b_mass):  # type: ignore[no-untyped-def]
        """Of two normalised results and their log2-sum-exp2. One without mass leaves the other's bits as they are."""
        peak = tl.maximum(a_mass, b_mass)
        base = tl.where(peak == float("-inf"), 0.0, peak)
        a_share = tl.exp2(a_mass - base)
        b_share = tl.exp2(b_mass - base)
        total = a_share + b_share
        some = total > 0
        per = 1.0 / tl.where(some, total, 1.0)
        mass = tl.where(some, base + tl.log2(tl.where(some, total, 1.0)), float("-inf"))
        # an fma by name: whether a compiler makes one of a * x + b * y must not depend on the kernel
        return tl.fma(a, tl.broadcast_to((a_share * per)[:, None], a.shape), b * (b_share * per)[:, None]), mass

    @triton.jit  # type: ignore[untyped-decorator]
    def from_fp8(bits, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
        """float8_e4m3fn divided by 256, exactly: its bits moved into a float16's. It needs no fp8 unit."""
        wide = bits.to(tl.uint16)
        moved = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        return moved.to(tl.float16, bitcast=True).to(dtype)

    @triton.jit  # type: ignore[untyped-decorator]
    def attend(  # type: ignore[no-untyped-def]
        queries, position, low, end, leaf, pages, scales, table, kv_head, scale, soft_cap, window,
        NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, SOFT_CAP: tl.constexpr, FP8: tl.constexpr,
        PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr, LEAF: tl.constexpr,
    ):  # fmt: skip
        """-> result of one leaf `[BLOCK_ROWS, BLOCK_DIM]`, normalised, and its log2-sum-exp2 `[BLOCK_ROWS]`"""
        key = leaf * LEAF + tl.arange(0, LEAF)
        known = (key >= low) & (key < end)
        page = tl.load(table + key // PAGE_SIZE, mask=known, other=0).to(tl.int64)
        place = (page * (2 * NUM_KV_HEADS) + kv_head) * PAGE_SIZE + key % PAGE_SIZE  # in vectors of HEAD_DIM
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
        FP8: tl.constexpr, DIRECT: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, LEAF: tl.constexpr, LEAVES: tl.constexpr,
    ):  # fmt: skip
        """One program: one work item and kv head. A row is a (query, head) pair."""
        item = items + tl.program_id(0) * 6
        kv_head = tl.program_id(1)
        table = page_table + tl.load(item).to(tl.int64) * table_stride
        first_leaf = tl.load(item + 1)
        end_leaf = tl.load(item + 2)
        first_query = tl.load(item + 3)
        num_queries = tl.load(item + 4)
        slot = tl.load(item + 5)
        row = tl.arange(0, BLOCK_ROWS)
        query = row // NUM_GROUPS
        alive = query < num_queries
        head = kv_head * NUM_GROUPS + row % NUM_GROUPS
        token = tl.load(tokens + first_query + query, mask=alive, other=0).to(tl.int64)
        position = tl.load(positions + first_query + query, mask=alive, other=-1)
        end = tl.max(position, 0) + 1
        low = tl.min(tl.where(alive, position, 1 << 30), 0) - window + 1
        column = tl.arange(0, BLOCK_DIM)
        mask = alive[:, None] & (column < HEAD_DIM)
        queries = tl.load(q + token[:, None] * q_token + head[:, None] * q_head + column, mask=mask, other=0.0)
        block = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
        block_mass = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
        if DIRECT:
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
            place = out + token[:, None] * out_token + head[:, None] * out_head + column
            tl.store(place, total.to(out.dtype.element_ty), mask=mask)
        else:
            for leaf in range(first_leaf, end_leaf):
                mixed, mass = attend(
                    queries, position, low, end, leaf, pages, scales, table, kv_head, scale, soft_cap, window,
                    NUM_KV_HEADS, HEAD_DIM, SOFT_CAP, FP8, PAGE_SIZE, BLOCK_DIM, LEAF,
                )  # fmt: skip
                block, block_mass = merge(block, block_mass, mixed, mass)
            index = (slot + query).to(tl.int64) * (NUM_KV_HEADS * NUM_GROUPS) + head
            tl.store(partials + index[:, None] * HEAD_DIM + column, block, mask=mask)
            tl.store(masses + index, block_mass, mask=alive)

    @triton.jit  # type: ignore[untyped-decorator]
    def fold_kernel(  # type: ignore[no-untyped-def]
        partials, masses, out, fold_queries, fold_starts, entries, tokens, out_token, out_head,
        num_heads, num_groups, head_dim, BLOCK_HEADS: tl.constexpr, BLOCK_DIM: tl.constexpr,
    ):  # fmt: skip
        """One program: the partials of one query and the heads of one kv head, in the order of its entries."""
        index = tl.program_id(0)
        group = tl.arange(0, BLOCK_HEADS)
        alive = group < num_groups
        head = tl.program_id(1) * num_groups + group
        column = tl.arange(0, BLOCK_DIM)
        mask = alive[:, None] & (column < head_dim)
        block = tl.zeros([BLOCK_HEADS, BLOCK_DIM], tl.float32)
        total = tl.zeros([BLOCK_HEADS, BLOCK_DIM], tl.float32)
        block_mass = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
        total_mass = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
        for place in range(tl.load(fold_starts + index), tl.load(fold_starts + index + 1)):
            entry = tl.load(entries + place)
            begins = (entry & 1) == 1
            whole, whole_mass = merge(total, total_mass, block, block_mass)
            total = tl.where(begins, whole, total)
            total_mass = tl.where(begins, whole_mass, total_mass)
            block = tl.where(begins, 0.0, block)
            block_mass = tl.where(begins, float("-inf"), block_mass)
            at = (entry >> 1).to(tl.int64) * num_heads + head
            mixed = tl.load(partials + at[:, None] * head_dim + column, mask=mask, other=0.0)
            mass = tl.load(masses + at, mask=alive, other=float("-inf"))
            block, block_mass = merge(block, block_mass, mixed, mass)
        total, total_mass = merge(total, total_mass, block, block_mass)
        token = tl.load(tokens + tl.load(fold_queries + index)).to(tl.int64)
        tl.store(out + token * out_token + head[:, None] * out_head + column, total.to(out.dtype.element_ty), mask=mask)
