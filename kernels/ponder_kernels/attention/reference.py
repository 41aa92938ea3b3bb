# ruff: noqa: PLR0917
"""Paged attention in plain torch: sequences of similar length are padded to a rectangle and computed together."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["FP8", "Group", "PaddedGroups", "attend", "padded_groups"]

GROUP_BYTES = 1 << 21  # gathered at a time; faster while it fits into a core's second-level cache
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences that are computed together.

    tokens: `[num_sequences, num_queries]`, rows of the step; padding repeats the last one.
    parts: `[num_sequences * 2 * num_kv_heads * num_pages]`, indices of one head's part of a page. Heads come before
    pages, so that the gathered keys of a head are contiguous.
    mask: `[num_sequences, num_queries, num_pages * page_size]`, 0 or -inf.
    """

    tokens: torch.Tensor
    parts: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class PaddedGroups:
    """All groups of a step.

    order: the rows of the step in the order in which the groups take them, padding included.
    places: `[num_tokens]`, the index of each row in that order.
    """

    groups: tuple[Group, ...]
    order: torch.Tensor
    places: torch.Tensor


def padded_groups(
    queries: torch.Tensor, contexts: torch.Tensor, table: torch.Tensor, pages: torch.Tensor, window: int
) -> PaddedGroups:
    """Group the sequences of a step; the arguments are those of `layout.layout`."""
    starts = F.pad(queries.cumsum(0), (1, 0))
    counts = (contexts + pages.shape[3] - 1) // pages.shape[3]
    rows = _cut(queries.tolist(), counts.tolist(), GROUP_BYTES // (pages[0].numel() * pages.element_size()))
    groups = tuple(_group(row, starts, queries, contexts, table, pages, window) for row in rows)
    order = torch.cat([group.tokens.view(-1) for group in groups])
    places = torch.empty(int(starts[-1]), dtype=torch.int64, device=pages.device)
    places[order] = torch.arange(len(order), device=pages.device)
    return PaddedGroups(groups, order, places)


def _cut(queries: list[int], pages: list[int], most: int) -> list[list[int]]:
    """Sorts sequences into groups of at most `most` pages in which padding adds little.

    The queries of a group differ by less than a factor of two. No sequence has fewer than 0.6 times the pages of the
    longest one, less two.
    """
    keys = [((length - 1).bit_length(), num_pages) for length, num_pages in zip(queries, pages, strict=True)]
    groups: list[list[int]] = []
    magnitude, least, room = -1, 0.0, 0
    for index in sorted(range(len(keys)), key=keys.__getitem__, reverse=True):
        if keys[index][0] != magnitude or keys[index][1] < least or not room:
            magnitude, widest = keys[index]
            least, room = 0.6 * widest - 2, max(1, most // widest)
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


def attend(
    q: torch.Tensor,
    pages: torch.Tensor,
    groups: PaddedGroups,
    scale: float,
    *,
    soft_cap: float = 0.0,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """Computes what `paged_attention.op` describes."""
    num_kv_heads, page_size, head_dim = pages.shape[2:]
    by_part = (pages.view(torch.uint8) if pages.dtype == FP8 else pages).view(-1, page_size * head_dim)
    ordered = q.index_select(0, groups.order)
    out, start = [], 0
    for group in groups.groups:
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
            run = _attend_decode if num_queries == 1 else _attend_prefill
            mixed = run(rows, kv[:, 0], kv[:, 1], mask, scale)
        out.append(mixed.reshape(b * num_queries, -1, head_dim))
        start = end
    return torch.cat(out).index_select(0, groups.places)


def _attend_capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, soft_cap: float
) -> torch.Tensor:
    """Attention with capped scores, in float32 and all at once, because torch's fused attention knows no cap."""
    b, num_queries, _, head_dim = q.shape
    rows = q.view(b, num_queries, k.shape[1], -1, head_dim).permute(0, 2, 3, 1, 4).float()
    score = rows @ k[:, :, None].float().transpose(-1, -2) * scale
    share = (soft_cap * (score / soft_cap).tanh() + mask[:, None, None].float()).softmax(-1)
    return (share @ v[:, :, None].float()).permute(0, 3, 1, 2, 4).to(q.dtype)


def _attend_decode(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of one query a sequence. The query heads of a kv head become rows, so that its keys are read once."""
    b, head_dim = len(q), q.shape[-1]
    num_kv_heads, num_keys = k.shape[1:3]
    rows = q.view(b, num_kv_heads, -1, head_dim)
    wide = mask.view(b, 1, 1, num_keys).expand(b, 1, rows.shape[2], num_keys)
    return F.scaled_dot_product_attention(rows, k, v, attn_mask=wide, scale=scale)


def _attend_prefill(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of several queries. Each kv head becomes a batch entry whose query heads share keys of stride 0."""
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
