# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Causal attention of a step's queries over keys and values that stand in pages; decode and chunked prefill alike.

Decode is bound by memory (every key and value once a step), prefill of more than about a hundred queries a
sequence by the matrix rate. Softmax is computed online: https://arxiv.org/abs/2205.14135.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Group", "Layout", "layout", "op", "op_reference", "op_triton"]

BLOCK_ROWS = 16  # the least that a tensor core takes; decode fills it with the query heads of one kv head
BLOCK_KEYS = 32
GROUP_BYTES = 1 << 21  # what the reference gathers at once; it pays to stay within a core's second cache


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
class Layout:
    """Where the queries and keys of a step stand; one a step serves all layers.

    query_starts: `[num_sequences + 1]` rows of the step; context_lengths: `[num_sequences]` keys a sequence,
    this step's included; page_table: `[num_sequences, max_pages]`; all int32. For the reference: order, rows of the
    step as the groups take them; places: `[num_tokens]`, where each row stands in that order.
    """

    query_starts: torch.Tensor
    context_lengths: torch.Tensor
    page_table: torch.Tensor
    max_queries: int
    groups: tuple[Group, ...] = ()
    order: torch.Tensor | None = None
    places: torch.Tensor | None = None


def layout(
    query_lengths: torch.Tensor,
    context_lengths: torch.Tensor,
    page_table: torch.Tensor,
    *,
    pages: torch.Tensor,
    window: int | None = None,
) -> Layout:
    """From int64 tensors on the CPU: `[num_sequences]`, `[num_sequences]`, `[num_sequences, max_pages]`.

    pages: one layer's, as `op` takes them; of these only shape, dtype and device are looked at. window: a query sees
    so many keys, its own included; such a step goes by the reference on every device.
    """
    starts = F.pad(query_lengths.cumsum(0), (1, 0))
    common = (
        starts.to(pages.device, torch.int32),
        context_lengths.to(pages.device, torch.int32),
        page_table.to(pages.device, torch.int32),
        int(query_lengths.max()),
    )
    if pages.is_cuda and triton is not None and window is None:
        return Layout(*common)
    counts = (context_lengths + pages.shape[3] - 1) // pages.shape[3]
    rows = _cut(query_lengths.tolist(), counts.tolist(), GROUP_BYTES // (pages[0].numel() * pages.element_size()))
    groups = tuple(_group(row, starts, query_lengths, context_lengths, page_table, pages, window) for row in rows)
    order = torch.cat([group.tokens.view(-1) for group in groups])
    places = torch.empty(int(starts[-1]), dtype=torch.int64, device=pages.device)
    places[order] = torch.arange(len(order), device=pages.device)
    return Layout(*common, groups, order, places)


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
    window: int | None,
) -> Group:
    row = torch.tensor(rows)
    length, context = queries[row, None], contexts[row, None]
    num_parts, page_size = 2 * pages.shape[2], pages.shape[3]
    num_pages = (int(context.max()) + page_size - 1) // page_size
    parts = table[row, None, :num_pages] * num_parts + torch.arange(num_parts)[:, None]
    step = torch.minimum(torch.arange(int(length.max())), length - 1)
    position = context - length + step
    key = torch.arange(num_pages * page_size)
    hidden = key > position[:, :, None]
    if window is not None:
        hidden |= key <= position[:, :, None] - window
    mask = torch.zeros(hidden.shape, dtype=pages.dtype).masked_fill_(hidden, float("-inf"))
    return Group(*(tensor.to(pages.device) for tensor in (starts[row, None] + step, parts.view(-1), mask)))


def op(q: torch.Tensor, pages: torch.Tensor, where: Layout, scale: float) -> torch.Tensor:
    """q: `[num_tokens, num_heads, head_dim]`, pages: `[num_pages, 2, num_kv_heads, page_size, head_dim]` contiguous,
    scale: what q @ k is multiplied by -> `[num_tokens, num_heads, head_dim]`. Pages must hold finite numbers
    everywhere: what is masked is multiplied by zero.
    """
    by_triton = q.is_cuda and triton is not None and where.order is None
    return op_triton(q, pages, where, scale) if by_triton else op_reference(q, pages, where, scale)


def op_reference(q: torch.Tensor, pages: torch.Tensor, where: Layout, scale: float) -> torch.Tensor:
    num_kv_heads, page_size, head_dim = pages.shape[2:]
    assert where.order is not None, "the layout was made for pages on a GPU"
    assert where.places is not None
    by_part = pages.view(-1, page_size * head_dim)
    ordered = q.index_select(0, where.order)
    out, start = [], 0
    for group in where.groups:
        b, num_queries = group.tokens.shape
        end = start + b * num_queries
        kv = by_part.index_select(0, group.parts).view(b, 2, num_kv_heads, -1, head_dim)
        attend = _attend_decode if num_queries == 1 else _attend_prefill
        rows = ordered[start:end].view(b, num_queries, -1, head_dim)
        out.append(attend(rows, kv[:, 0], kv[:, 1], group.mask, scale).reshape(b * num_queries, -1, head_dim))
        start = end
    return torch.cat(out).index_select(0, where.places)


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


def op_triton(q: torch.Tensor, pages: torch.Tensor, where: Layout, scale: float) -> torch.Tensor:
    num_heads, head_dim = q.shape[1:]
    num_kv_heads, page_size = pages.shape[2:4]
    num_groups = num_heads // num_kv_heads
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    grid = (len(where.context_lengths), triton.cdiv(where.max_queries * num_groups, BLOCK_ROWS), num_kv_heads)
    kernel[grid](
        q, pages, out, where.query_starts, where.context_lengths, where.page_table, scale,
        q.stride(0), q.stride(1), out.stride(0), out.stride(1), *pages.stride()[:4], where.page_table.stride(0),
        num_groups, head_dim, page_size, triton.next_power_of_2(head_dim), BLOCK_ROWS, BLOCK_KEYS,
    )  # fmt: skip
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        q, pages, out, query_starts, context_lengths, page_table, scale,
        q_token, q_head, out_token, out_head, page_stride, page_kind, page_head, page_slot, table_stride,
        num_groups, head_dim, PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr,
    ):  # fmt: skip
        """One program: BLOCK_ROWS (query, head) pairs of one sequence and kv head, over all keys they may see."""
        sequence = tl.program_id(0)
        kv_head = tl.program_id(2)
        start = tl.load(query_starts + sequence)
        num_queries = tl.load(query_starts + sequence + 1) - start
        context = tl.load(context_lengths + sequence)
        row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        query = row // num_groups
        alive = query < num_queries
        position = context - num_queries + query
        token = (start + query).to(tl.int64)
        head = kv_head * num_groups + row % num_groups
        column = tl.arange(0, BLOCK_DIM)
        inside = column < head_dim
        queries = tl.load(
            q + token[:, None] * q_token + head[:, None] * q_head + column, mask=alive[:, None] & inside, other=0.0
        )
        best = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
        mass = tl.zeros([BLOCK_ROWS], tl.float32)
        total = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
        last = (tl.program_id(1) * BLOCK_ROWS + BLOCK_ROWS - 1) // num_groups
        end = tl.minimum(context, context - num_queries + last + 1)
        if tl.program_id(1) * BLOCK_ROWS < num_queries * num_groups:
            for first in range(0, end, BLOCK_KEYS):
                key = first + tl.arange(0, BLOCK_KEYS)
                known = key < end
                entry = page_table + sequence * table_stride + key // PAGE_SIZE
                page = tl.load(entry, mask=known, other=0).to(tl.int64)
                place = page * page_stride + kv_head * page_head + (key % PAGE_SIZE) * page_slot
                mask = known[:, None] & inside
                keys = tl.load(pages + place[:, None] + column, mask=mask, other=0.0)
                values = tl.load(pages + page_kind + place[:, None] + column, mask=mask, other=0.0)
                score = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
                score = tl.where(known & (key <= position[:, None]), score, float("-inf"))
                peak = tl.maximum(best, tl.max(score, 1))
                share = tl.exp(score - peak[:, None])
                shrink = tl.exp(best - peak)
                mass = mass * shrink + tl.sum(share, 1)
                total = total * shrink[:, None] + tl.dot(share.to(values.dtype), values, input_precision="ieee")
                best = peak
            result = (total / mass[:, None]).to(out.dtype.element_ty)
            place = out + token[:, None] * out_token + head[:, None] * out_head + column
            tl.store(place, result, mask=alive[:, None] & inside)
