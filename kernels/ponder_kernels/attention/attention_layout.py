"""Where the queries and keys of a step stand: made once a step, on the host, for all layers of the same window."""

from dataclasses import dataclass

import numpy as np
import torch

from ponder_kernels.attention.attention_groups import Group, Groups, groups_of
from ponder_kernels.attention.attention_plan import LEAF_TOKENS, LEAVES_PER_BLOCK, plan
from ponder_kernels.attention.attention_tile import queries_of
from ponder_kernels.attention.attention_work import Work

try:
    import triton
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Layout", "layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """window: tokens that a query sees, itself included; 0 for all. work: for the kernels; reference: for torch."""

    window: int
    work: Work | None
    reference: Groups | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        assert self.reference is not None, "the layout was made for pages on a GPU"
        return self.reference.groups


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

    pages: one layer's, as `paged_attention.op` takes them; of these only shape, dtype and device are looked at. Entries
    of the page table that no query sees may be anything on a GPU, 0 or more or -1 for the reference. num_heads: of the
    queries, where known, for the best shape of the kernels' tiles. share: read a page that several sequences name once.
    batch_invariant: a sequence has the same bits in whatever company (every tile has the same shape). for_kernel: for
    `op_triton` or for `op_reference`; None goes by the pages' device.
    """
    if not (for_kernel or (for_kernel is None and pages.is_cuda and triton is not None)):
        return Layout(window, None, groups_of(query_lengths, context_lengths, page_table, pages, window))
    table = page_table.numpy().astype(np.int32)
    num_groups = 4 if num_heads is None else num_heads // pages.shape[2]
    tile_queries = queries_of(num_groups, pages.shape[4], 4 if pages.dtype == torch.float32 else 2)
    planned = plan(
        query_lengths.numpy(), context_lengths.numpy(), table, pages.shape[3], tile_queries=tile_queries, window=window,
        share=share, narrow=not batch_invariant, leaf_tokens=leaf_tokens, leaves_per_block=leaves_per_block,
    )  # fmt: skip
    return Layout(window, Work.of(planned, table, pages.device, tile_queries=tile_queries, one_tile=batch_invariant))
