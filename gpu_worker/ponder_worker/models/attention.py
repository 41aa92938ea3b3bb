"""Attention of a step: who computes which rows of it.

On the CPU that is C (`native`), or, without a compiler or with a sliding window, torch: what siblings share is read
once for all of them, each one's tail by itself, and the two parts are merged by the logarithms of their sums, as in
https://arxiv.org/abs/2402.05099 and FlashInfer's cascades. A GPU's steps go to `paged_attention`.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ponder_kernels.attention import paged_attention
from ponder_worker.models.native.layer import Chunks, Native, Reading
from ponder_worker.models.pages import FP8, Pages

_LEAST_SAVED_PAGES = 24  # below, another round of operators costs more than it saves
_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)  # private: it may go


@dataclass(frozen=True, slots=True)
class Family:
    """Decoding sequences whose first pages are the same.

    start, end: its rows among those of all families; parts: `[2 * num_kv_heads * num_pages]`, a head's part of a shared
    page each, heads outermost
    """

    start: int
    end: int
    parts: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a step. rows: of all families, `[num_rows]`, in their order; tails: what each of them reads alone.

    others: the sequences without a family, at `other_rows` of the step; both None where there are no such rows.
    Where C attends, neither: reading is for the rows that decode, chunks for the others, None where there are none.
    """

    rows: torch.Tensor | None
    families: tuple[Family, ...]
    tails: paged_attention.Layout | None
    other_rows: torch.Tensor | None
    others: paged_attention.Layout | None
    reading: Reading | None = None
    chunks: Chunks | None = None


def layout(
    query_lengths: torch.Tensor,
    context_lengths: torch.Tensor,
    page_table: torch.Tensor,
    *,
    pages: torch.Tensor,
    window: int | None,
    num_heads: int = 0,
    native: Native | None = None,
) -> Layout:
    """Arguments as `paged_attention.layout` has them; native: where no window is. Siblings' float8 is read by each of
    them on the CPU."""
    if native is not None and window is None:
        return _native_layout(query_lengths, context_lengths, page_table, native, num_heads=num_heads, pages=pages)
    found: list[tuple[torch.Tensor, int]] = []
    if window is None and pages.device.type == "cpu" and pages.dtype != FP8:
        found = _families(query_lengths, context_lengths, page_table, pages.shape[3])
    if not found:
        whole = paged_attention.layout(query_lengths, context_lengths, page_table, pages=pages, window=window or 0)
        return Layout(None, (), None, None, whole)
    members = torch.cat([sequences for sequences, _ in found])
    shared = torch.cat([torch.full_like(sequences, num_pages) for sequences, num_pages in found])
    families, start = [], 0
    for sequences, num_pages in found:
        parts = _parts(page_table[sequences[0], :num_pages], pages)
        families.append(Family(start, start + len(sequences), parts))
        start += len(sequences)
    column = torch.arange(page_table.shape[1]) + shared[:, None]
    tail_table = page_table[members].gather(1, column.clamp_(max=page_table.shape[1] - 1))
    tail_lengths = context_lengths[members] - shared * pages.shape[3]
    tails = paged_attention.layout(torch.ones_like(members), tail_lengths, tail_table, pages=pages)
    starts = query_lengths.cumsum(0) - query_lengths
    alone = torch.ones(len(query_lengths), dtype=torch.bool)
    alone[members] = False
    if not bool(alone.any()):
        return Layout(starts[members], tuple(families), tails, None, None)
    others = paged_attention.layout(query_lengths[alone], context_lengths[alone], page_table[alone], pages=pages)
    other_rows = alone.repeat_interleave(query_lengths).nonzero()[:, 0]
    return Layout(starts[members], tuple(families), tails, other_rows, others)


def _native_layout(
    query_lengths: torch.Tensor,
    context_lengths: torch.Tensor,
    page_table: torch.Tensor,
    native: Native,
    *,
    num_heads: int,
    pages: torch.Tensor,
) -> Layout:
    decoding = query_lengths == 1
    if bool(decoding.all()):
        return Layout(None, (), None, None, None, native.plan(context_lengths, page_table, num_heads, pages))
    starts, rest = query_lengths.cumsum(0) - query_lengths, ~decoding
    chunks = native.chunks(
        *(each[rest] for each in (starts, query_lengths, context_lengths, page_table)), num_heads=num_heads, pages=pages
    )
    if bool(rest.all()):
        return Layout(None, (), None, None, None, chunks=chunks)
    reading = native.plan(context_lengths[decoding], page_table[decoding], num_heads, pages)
    return Layout(starts[decoding], (), None, None, None, reading, chunks)


def attend(q: torch.Tensor, layer: Pages, where: Layout, scale: float, native: Native | None = None) -> torch.Tensor:
    """As `paged_attention.op`: q `[num_tokens, num_heads, head_dim]` -> the same shape"""
    pages = layer.numbers
    if native is not None and (where.reading is not None or where.chunks is not None):
        return _attend_native(q, pages, where, scale, native)
    if where.rows is None:
        assert where.others is not None
        return paged_attention.op(q, pages, where.others, scale, scales=layer.scales)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if where.others is not None and where.other_rows is not None:
        out[where.other_rows] = paged_attention.op(q[where.other_rows], pages, where.others, scale)
    assert where.tails is not None
    heads = (pages.shape[2], q.shape[1] // pages.shape[2], q.shape[2])
    rows = q.index_select(0, where.rows).view(-1, *heads)
    front, front_mass = _fronts(rows, pages, where.families, scale)
    tail, tail_mass = _tails(rows, pages, where.tails, scale)
    share = torch.sigmoid(front_mass - tail_mass)[..., None].to(q.dtype)
    out[where.rows] = torch.lerp(tail, front, share).view(len(rows), -1, heads[2])
    return out


def _attend_native(q: torch.Tensor, pages: torch.Tensor, where: Layout, scale: float, native: Native) -> torch.Tensor:
    if where.chunks is None:
        assert where.reading is not None
        return native.attend(q, pages, where.reading, scale)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    native.attend_chunks(q, pages, where.chunks, scale, out)
    if where.reading is not None and where.rows is not None:
        out[where.rows] = native.attend(q.index_select(0, where.rows), pages, where.reading, scale)
    return out


def _families(
    query_lengths: torch.Tensor, context_lengths: torch.Tensor, page_table: torch.Tensor, page_size: int
) -> list[tuple[torch.Tensor, int]]:
    """Sequences that decode and begin with the same page, and how many pages they have in common."""
    decoding = ((query_lengths == 1) & (context_lengths > page_size)).nonzero()[:, 0]
    if len(decoding) < 2:
        return []
    first, order = page_table[decoding, 0].sort(stable=True)
    borders = [0, *((first[1:] != first[:-1]).nonzero()[:, 0] + 1).tolist(), len(first)]
    ordered = decoding[order]
    found = []
    for start, end in pairwise(borders):
        sequences = ordered[start:end]
        if len(sequences) < 2:
            continue
        most = int((context_lengths[sequences].min() - 1) // page_size)
        table = page_table[sequences, :most]
        num_pages = int((table == table[0]).all(0).long().cumprod(0).sum())
        if num_pages * (len(sequences) - 1) >= _LEAST_SAVED_PAGES:
            found.append((sequences, num_pages))
    return found


def _parts(page_ids: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
    num_parts = 2 * pages.shape[2]
    return (page_ids * num_parts + torch.arange(num_parts)[:, None]).view(-1)


def _fronts(
    rows: torch.Tensor, pages: torch.Tensor, families: tuple[Family, ...], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """rows: `[num_rows, num_kv_heads, num_groups, head_dim]` -> the same, and logarithms of sums without head_dim"""
    num_kv_heads, num_groups, head_dim = rows.shape[1:]
    by_part = pages.view(-1, pages.shape[3] * head_dim)
    outs, masses = [], []
    for family in families:
        size = family.end - family.start
        kv = by_part.index_select(0, family.parts).view(2, 1, num_kv_heads, -1, head_dim)
        queries = rows[family.start : family.end].transpose(0, 1).reshape(1, num_kv_heads, -1, head_dim)
        out, mass = _flash(queries, kv[0], kv[1], None, scale)
        outs.append(out.view(num_kv_heads, size, num_groups, head_dim).transpose(0, 1))
        masses.append(mass.view(num_kv_heads, size, num_groups).transpose(0, 1))
    return torch.cat(outs), torch.cat(masses)


def _tails(
    rows: torch.Tensor, pages: torch.Tensor, where: paged_attention.Layout, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_fronts`."""
    num_kv_heads, num_groups, head_dim = rows.shape[1:]
    by_part = pages.view(-1, pages.shape[3] * head_dim)
    out = torch.empty_like(rows)
    mass = torch.empty(rows.shape[:-1])
    for group in where.groups:
        members = group.tokens[:, 0]
        size = len(members)
        kv = by_part.index_select(0, group.parts).view(size, 2, num_kv_heads, -1, head_dim)
        mask = group.mask.view(size, 1, 1, -1).expand(size, 1, num_groups, -1)
        out[members], mass[members] = _flash(rows[members], kv[:, 0], kv[:, 1], mask, scale)
    return out, mass


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """q: `[b, h, n, d]`, k and v: `[b, h, m, d]` -> `[b, h, n, d]`, and log of the sum of exponentials `[b, h, n]`"""
    if _FLASH is not None:
        out, mass = _FLASH(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        return out, mass
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores += mask
    return scores.softmax(-1).to(v.dtype) @ v, scores.logsumexp(-1)
