"""A plan on the device: all its arrays in one tensor, of the plan's own size or of a fixed one for CUDA graphs."""

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels.attention.attention_plan import AttentionPlan

__all__ = ["Capacity", "DevicePlan"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest step that a static `DevicePlan` can hold.

    rows, pages: rows and columns of the page table. queries: queries of the step. narrow, wide: items of each kind.
    entries: folding entries, as many as there are slots.
    """

    rows: int
    pages: int
    queries: int
    narrow: int
    wide: int
    entries: int

    @classmethod
    def of(cls, planned: AttentionPlan, table: npt.NDArray[np.int32]) -> "Capacity":
        """The capacity that this plan needs."""
        return cls(
            rows=table.shape[0],
            pages=table.shape[1],
            queries=len(planned.tokens),
            narrow=len(planned.narrow),
            wide=len(planned.wide),
            entries=planned.num_slots,
        )

    def holds(self, other: "Capacity") -> bool:
        """Whether a step of the other capacity fits."""
        mine = self.rows, self.pages, self.queries, self.narrow, self.wide, self.entries
        wanted = other.rows, other.pages, other.queries, other.narrow, other.wide, other.entries
        return all(have >= want for have, want in zip(mine, wanted, strict=True))

    def grown(self, other: "Capacity") -> "Capacity":
        """A capacity that holds both, rounded up to powers of two of at least 16. Rows and queries are not rounded."""
        mine = self.pages, self.narrow, self.wide, self.entries
        others = other.pages, other.narrow, other.wide, other.entries
        room = (1 << (max(*pair, 16) - 1).bit_length() for pair in zip(mine, others, strict=True))
        return Capacity(max(self.rows, other.rows), next(room), max(self.queries, other.queries), *room)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the parts of a `DevicePlan`, in order."""
        queries = (self.queries,)
        items = ((self.narrow, 6), (self.wide, 6))
        return (*items, queries, queries, queries, (self.queries + 1,), (self.entries,), (self.rows, self.pages))


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The int32 tensors that the kernels read, named as in `AttentionPlan`. All of them are views of `flat`.

    Where the capacity exceeds the plan, the rest is zero: items without queries and folds without entries, which the
    kernels skip.
    """

    flat: torch.Tensor
    narrow: torch.Tensor
    wide: torch.Tensor
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
    capacity: Capacity

    @classmethod
    def of(
        cls,
        planned: AttentionPlan,
        table: npt.NDArray[np.int32],
        device: torch.device,
        *,
        tile_queries: int,
        capacity: Capacity | None = None,
    ) -> "DevicePlan":
        """Copies a plan to the device, in a single transfer."""
        capacity = capacity or Capacity.of(planned, table)
        flat = torch.from_numpy(_packed(planned, table, capacity)).to(device, non_blocking=True)
        pieces = torch.split(flat, [prod(shape) for shape in capacity.shapes])
        parts = (piece.view(shape) for piece, shape in zip(pieces, capacity.shapes, strict=True))
        narrow, wide, tokens, positions, fold_queries, fold_starts, entries, page_table = parts
        return cls(
            flat, narrow, wide, tokens, positions, fold_queries, fold_starts, entries, page_table,
            capacity.entries, planned.leaf_tokens, planned.leaves_per_block, tile_queries, capacity,
        )  # fmt: skip

    def fill(self, planned: AttentionPlan, table: npt.NDArray[np.int32]) -> None:
        """Writes another plan into the same memory. Raises AssertionError if it does not fit; see `Capacity.holds`."""
        sizes = planned.leaf_tokens, planned.leaves_per_block
        assert sizes == (self.leaf_tokens, self.leaves_per_block), "the plan has leaves of another size"
        self.flat.copy_(torch.from_numpy(_packed(planned, table, self.capacity)), non_blocking=True)


def _packed(planned: AttentionPlan, table: npt.NDArray[np.int32], capacity: Capacity) -> npt.NDArray[np.int32]:
    wanted = Capacity.of(planned, table)
    assert capacity.holds(wanted), f"a step of {wanted} does not fit into {capacity}"
    parts = (
        planned.narrow, planned.wide, planned.tokens, planned.positions, planned.fold_queries, planned.fold_starts,
        planned.entries, table,
    )  # fmt: skip
    flat = np.zeros(sum(prod(shape) for shape in capacity.shapes), dtype=np.int32)
    start = 0
    for part, shape in zip(parts, capacity.shapes, strict=True):
        end = start + prod(shape)
        where = flat[start:end].reshape(shape)
        where[tuple(slice(0, size) for size in part.shape)] = part
        start = end
    return flat
