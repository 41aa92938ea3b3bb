"""The layout of a step's attention: computed once a step on the host, and used by every layer of the same window."""

from dataclasses import dataclass

import numpy as np
import torch

from ponder_kernels.attention.attention_plan import LEAF_TOKENS, LEAVES_PER_BLOCK, plan
from ponder_kernels.attention.device_plan import DevicePlan
from ponder_kernels.attention.reference import Group, PaddedGroups, padded_groups
from ponder_kernels.attention.tiles import queries_per_tile

try:
    import triton
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Layout", "layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The way from a step's queries to their keys: a plan for the kernels, or padded groups for the reference.

    window: how many tokens a query sees, itself included; 0 means all of them.
    """

    window: int
    plan: DevicePlan | None
    reference: PaddedGroups | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The padded groups of the reference."""
        assert self.reference is not None, "this layout was made for pages on a GPU"
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
    leaf_tokens: int = LEAF_TOKENS,
    leaves_per_block: int = LEAVES_PER_BLOCK,
    for_kernel: bool | None = None,
) -> Layout:
    """Lays out one step. The lengths are `[num_sequences]`, the table `[num_sequences, max_pages]`; int64 on the CPU.

    pages: one layer's pages, as `paged_attention.op` takes them; only their shape, dtype and device matter. Entries of
    the page table that no query sees may hold anything on a GPU, and any number from -1 up for the reference.
    num_heads: the number of query heads, from which the tiles get their shape. share: read a page that several
    sequences name once for all of them. for_kernel: whether `op_triton` or `op_reference` will run; by default this
    follows from the device of the pages.
    """
    if not (for_kernel or (for_kernel is None and pages.is_cuda and triton is not None)):
        return Layout(window, None, padded_groups(query_lengths, context_lengths, page_table, pages, window))
    table = page_table.numpy().astype(np.int32)
    num_groups = 4 if num_heads is None else num_heads // pages.shape[2]
    tile_queries = queries_per_tile(num_groups, pages.shape[4], 4 if pages.dtype == torch.float32 else 2)
    planned = plan(
        query_lengths.numpy(), context_lengths.numpy(), table, pages.shape[3], tile_queries=tile_queries, window=window,
        share=share, leaf_tokens=leaf_tokens, leaves_per_block=leaves_per_block,
    )  # fmt: skip
    return Layout(window, DevicePlan.of(planned, table, pages.device, tile_queries=tile_queries))
