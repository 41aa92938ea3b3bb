"""Cascade attention in torch: decoding siblings read their shared pages once, and each one its own pages.

The two parts of a result are merged by their log-sum-exp, as in https://arxiv.org/abs/2402.05099 and in the cascades of
FlashInfer.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ponder_kernels.attention import paged_attention

_LEAST_SAVED_PAGES = 24  # below this, another round of operators costs more than it saves
_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)  # private to torch, may vanish


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Siblings whose first pages are the same.

    start, end: their rows among those of all siblings. parts: `[2 * num_kv_heads * num_pages]`, indices of one head's
    part of a shared page, heads before pages.
    """

    start: int
    end: int
    parts: torch.Tensor


@dataclass(frozen=True, slots=True)
class CascadeLayout:
    """The decoding siblings of a step.

    sequences, rows: `[num_rows]`, the sequences of the step that have siblings, and their rows, in the order of the
    prefixes. tails: the pages that each of them reads alone.
    """

    sequences: torch.Tensor
    rows: torch.Tensor
    prefixes: tuple[SharedPrefix, ...]
    tails: paged_attention.Layout


def layout(
    query_lengths: torch.Tensor, context_lengths: torch.Tensor, page_table: torch.Tensor, pages: torch.Tensor
) -> CascadeLayout | None:
    """Finds the siblings of a step; None where sharing would not pay. The arguments are those of `attention.layout`."""
    page_size = pages.shape[3]
    found = _siblings(query_lengths, context_lengths, page_table, page_size)
    if not found:
        return None
    members = torch.cat([sequences for sequences, _ in found])
    shared = torch.cat([torch.full_like(sequences, num_pages) for sequences, num_pages in found])
    prefixes, start = [], 0
    for sequences, num_pages in found:
        parts = _parts(page_table[sequences[0], :num_pages], pages)
        prefixes.append(SharedPrefix(start, start + len(sequences), parts))
        start += len(sequences)
    column = torch.arange(page_table.shape[1]) + shared[:, None]
    tail_table = page_table[members].gather(1, column.clamp_(max=page_table.shape[1] - 1))
    tail_lengths = context_lengths[members] - shared * page_size
    tails = paged_attention.layout(torch.ones_like(members), tail_lengths, tail_table, pages=pages)
    starts = query_lengths.cumsum(0) - query_lengths
    return CascadeLayout(members, starts[members], tuple(prefixes), tails)


def attend(q: torch.Tensor, pages: torch.Tensor, layout: CascadeLayout, scale: float) -> torch.Tensor:
    """Attends from the rows of the siblings: `[num_rows, num_heads, head_dim]`, and a result of the same shape."""
    num_kv_heads, head_dim = pages.shape[2], q.shape[2]
    rows = q.view(-1, num_kv_heads, q.shape[1] // num_kv_heads, head_dim)
    front, front_mass = _attend_prefixes(rows, pages, layout.prefixes, scale)
    tail, tail_mass = _attend_tails(rows, pages, layout.tails, scale)
    share = torch.sigmoid(front_mass - tail_mass)[..., None].to(q.dtype)
    return torch.lerp(tail, front, share).view(len(rows), -1, head_dim)


def _siblings(
    query_lengths: torch.Tensor, context_lengths: torch.Tensor, page_table: torch.Tensor, page_size: int
) -> list[tuple[torch.Tensor, int]]:
    """Groups of decoding sequences that begin with the same pages, and how many pages each group has in common."""
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


def _attend_prefixes(
    rows: torch.Tensor, pages: torch.Tensor, prefixes: tuple[SharedPrefix, ...], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attends to the shared pages from rows `[num_rows, num_kv_heads, num_groups, head_dim]`.

    Returns a tensor of the same shape, and its log-sum-exp `[num_rows, num_kv_heads, num_groups]`.
    """
    num_kv_heads, num_groups, head_dim = rows.shape[1:]
    by_part = pages.view(-1, pages.shape[3] * head_dim)
    outs, masses = [], []
    for prefix in prefixes:
        size = prefix.end - prefix.start
        kv = by_part.index_select(0, prefix.parts).view(2, 1, num_kv_heads, -1, head_dim)
        queries = rows[prefix.start : prefix.end].transpose(0, 1).reshape(1, num_kv_heads, -1, head_dim)
        out, mass = _flash(queries, kv[0], kv[1], None, scale)
        outs.append(out.view(num_kv_heads, size, num_groups, head_dim).transpose(0, 1))
        masses.append(mass.view(num_kv_heads, size, num_groups).transpose(0, 1))
    return torch.cat(outs), torch.cat(masses)


def _attend_tails(
    rows: torch.Tensor, pages: torch.Tensor, layout: paged_attention.Layout, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attends to the pages that each row reads alone; shapes are those of `_attend_prefixes`."""
    num_kv_heads, num_groups, head_dim = rows.shape[1:]
    by_part = pages.view(-1, pages.shape[3] * head_dim)
    out = torch.empty_like(rows)
    mass = torch.empty(rows.shape[:-1])
    for group in layout.groups:
        members = group.tokens[:, 0]
        size = len(members)
        kv = by_part.index_select(0, group.parts).view(size, 2, num_kv_heads, -1, head_dim)
        mask = group.mask.view(size, 1, 1, -1).expand(size, 1, num_groups, -1)
        out[members], mass[members] = _flash(rows[members], kv[:, 0], kv[:, 1], mask, scale)
    return out, mass


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attends from q `[b, h, n, d]` to k, v `[b, h, m, d]`. Returns `[b, h, n, d]` and its log-sum-exp `[b, h, n]`."""
    if _FLASH is not None:
        out, mass = _FLASH(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        return out, mass
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores += mask
    return scores.softmax(-1).to(v.dtype) @ v, scores.logsumexp(-1)
