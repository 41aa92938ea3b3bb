"""Attention of a step, divided among those that can compute it.

On a GPU a step goes to the kernel of `paged_attention`. On the CPU it goes to C (`native`). Without a compiler, or with
a sliding window or a soft cap, it goes to torch, where siblings that share pages are computed by `cascade`.
"""

from dataclasses import dataclass

import torch

from ponder_kernels.attention import paged_attention
from ponder_worker.models import cascade
from ponder_worker.models.cascade import CascadeLayout
from ponder_worker.models.kv_pages import FP8, Pages
from ponder_worker.models.native.native_operations import DecodeLayout, NativeOperations, PrefillLayout


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """The division of a step's rows. A field is None if no row needs it.

    paged, paged_rows: sequences that are read one by one, and their rows in the step; paged_rows is None for all rows.
    cascade: decoding siblings whose shared pages are read once.
    decode, decode_rows: sequences that C decodes, and their rows in the step; decode_rows is None for all rows.
    prefill: sequences of which C computes several tokens.
    """

    paged: paged_attention.Layout | None = None
    paged_rows: torch.Tensor | None = None
    cascade: CascadeLayout | None = None
    decode: DecodeLayout | None = None
    decode_rows: torch.Tensor | None = None
    prefill: PrefillLayout | None = None


def layout(
    query_lengths: torch.Tensor,
    context_lengths: torch.Tensor,
    page_table: torch.Tensor,
    *,
    pages: torch.Tensor,
    window: int | None,
    num_heads: int = 0,
    capped: bool = False,
    native: NativeOperations | None = None,
) -> AttentionLayout:
    """Lays out one step; the arguments are those of `paged_attention.layout`.

    capped: scores have a soft cap. native: the C operations, which are used if there is neither a window nor a cap. On
    the CPU, siblings with float8 pages or capped scores are read one by one.
    """
    if native is not None and window is None and not capped:
        return _native_layout(query_lengths, context_lengths, page_table, native, num_heads=num_heads, pages=pages)
    shared: CascadeLayout | None = None
    if window is None and not capped and pages.device.type == "cpu" and pages.dtype != FP8:
        shared = cascade.layout(query_lengths, context_lengths, page_table, pages)
    if shared is None:
        whole = paged_attention.layout(query_lengths, context_lengths, page_table, pages=pages, window=window or 0)
        return AttentionLayout(paged=whole)
    alone = torch.ones(len(query_lengths), dtype=torch.bool)
    alone[shared.sequences] = False
    if not bool(alone.any()):
        return AttentionLayout(cascade=shared)
    others = paged_attention.layout(query_lengths[alone], context_lengths[alone], page_table[alone], pages=pages)
    other_rows = alone.repeat_interleave(query_lengths).nonzero()[:, 0]
    return AttentionLayout(paged=others, paged_rows=other_rows, cascade=shared)


def _native_layout(
    query_lengths: torch.Tensor,
    context_lengths: torch.Tensor,
    page_table: torch.Tensor,
    native: NativeOperations,
    *,
    num_heads: int,
    pages: torch.Tensor,
) -> AttentionLayout:
    decoding = query_lengths == 1
    if bool(decoding.all()):
        return AttentionLayout(decode=native.decode_layout(context_lengths, page_table, num_heads, pages))
    starts, others = query_lengths.cumsum(0) - query_lengths, ~decoding
    prefill = native.prefill_layout(
        *(each[others] for each in (starts, query_lengths, context_lengths, page_table)),
        num_heads=num_heads,
        pages=pages,
    )
    if bool(others.all()):
        return AttentionLayout(prefill=prefill)
    decode = native.decode_layout(context_lengths[decoding], page_table[decoding], num_heads, pages)
    return AttentionLayout(decode=decode, decode_rows=starts[decoding], prefill=prefill)


def attend(
    q: torch.Tensor,
    layer: Pages,
    layout: AttentionLayout,
    scale: float,
    native: NativeOperations | None = None,
    *,
    soft_cap: float = 0.0,
) -> torch.Tensor:
    """Attends from every query of one layer, as `paged_attention.op` does.

    q: `[num_tokens, num_heads, head_dim]`. soft_cap: if not 0, the layout was made for capped scores. Returns a
    contiguous tensor of the same shape.
    """
    pages = layer.numbers
    if native is not None and (layout.decode is not None or layout.prefill is not None):
        return _attend_native(q, pages, layout, scale, native)
    if layout.cascade is None:
        assert layout.paged is not None
        return paged_attention.op(q, pages, layout.paged, scale, soft_cap=soft_cap, scales=layer.scales)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if layout.paged is not None and layout.paged_rows is not None:
        out[layout.paged_rows] = paged_attention.op(q[layout.paged_rows], pages, layout.paged, scale)
    out[layout.cascade.rows] = cascade.attend(q.index_select(0, layout.cascade.rows), pages, layout.cascade, scale)
    return out


def _attend_native(
    q: torch.Tensor, pages: torch.Tensor, layout: AttentionLayout, scale: float, native: NativeOperations
) -> torch.Tensor:
    if layout.prefill is None:
        assert layout.decode is not None
        return native.attend_decode(q, pages, layout.decode, scale)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    native.attend_prefill(q, pages, layout.prefill, scale, out)
    if layout.decode is not None and layout.decode_rows is not None:
        out[layout.decode_rows] = native.attend_decode(
            q.index_select(0, layout.decode_rows), pages, layout.decode, scale
        )
    return out
