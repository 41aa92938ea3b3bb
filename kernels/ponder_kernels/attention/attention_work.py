"""A plan's arrays in one device tensor, of the plan's size or of a fixed one that CUDA graphs can keep."""

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels.attention.attention_plan import Plan

__all__ = ["Capacity", "Work"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The greatest step that a static Work takes: rows and columns of the page table, queries, items of each kind,
    entries, which are as many as slots.
    """

    rows: int
    pages: int
    queries: int
    narrow: int
    wide: int
    entries: int

    @classmethod
    def of(cls, planned: Plan, table: npt.NDArray[np.int32]) -> "Capacity":
        return cls(
            rows=table.shape[0],
            pages=table.shape[1],
            queries=len(planned.tokens),
            narrow=len(planned.narrow),
            wide=len(planned.wide),
            entries=planned.num_slots,
        )

    def holds(self, other: "Capacity") -> bool:
        mine = self.rows, self.pages, self.queries, self.narrow, self.wide, self.entries
        wanted = other.rows, other.pages, other.queries, other.narrow, other.wide, other.entries
        return all(have >= want for have, want in zip(mine, wanted, strict=True))

    def grown(self, other: "Capacity") -> "Capacity":
        """Room for both and for more: powers of two, sixteen at least, but as many rows and queries as they have."""
        mine = self.pages, self.narrow, self.wide, self.entries
        others = other.pages, other.narrow, other.wide, other.entries
        room = (1 << (max(*pair, 16) - 1).bit_length() for pair in zip(mine, others, strict=True))
        return Capacity(max(self.rows, other.rows), next(room), max(self.queries, other.queries), *room)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the parts of a Work, in their order."""
        queries = (self.queries,)
        items = ((self.narrow, 6), (self.wide, 6))
        return (*items, queries, queries, queries, (self.queries + 1,), (self.entries,), (self.rows, self.pages))


@dataclass(frozen=True, slots=True)
class Work:
    """What the kernels take, int32 on the device; the names are the Plan's. Its tensors are parts of `flat`.

    Where it is larger than its plan the rest is zeros: items without queries and folds without entries, which the
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
    one_tile: bool
    capacity: Capacity

    @classmethod
    def of(
        cls,
        planned: Plan,
        table: npt.NDArray[np.int32],
        device: torch.device,
        *,
        tile_queries: int,
        one_tile: bool,
        capacity: Capacity | None = None,
    ) -> "Work":
        """One copy to the device, however many parts. one_tile: narrow items have the wide ones' tiles."""
        capacity = capacity or Capacity.of(planned, table)
        flat = torch.from_numpy(_packed(planned, table, capacity)).to(device, non_blocking=True)
        pieces = torch.split(flat, [prod(shape) for shape in capacity.shapes])
        parts = (piece.view(shape) for piece, shape in zip(pieces, capacity.shapes, strict=True))
        narrow, wide, tokens, positions, fold_queries, fold_starts, entries, page_table = parts
        return cls(
            flat, narrow, wide, tokens, positions, fold_queries, fold_starts, entries, page_table,
            capacity.entries, planned.leaf_tokens, planned.leaves_per_block, tile_queries, one_tile, capacity,
        )  # fmt: skip

    def fill(self, planned: Plan, table: npt.NDArray[np.int32]) -> None:
        """Another plan in the same memory. AssertionError where it does not fit: see `Capacity.holds`."""
        sizes = planned.leaf_tokens, planned.leaves_per_block
        assert sizes == (self.leaf_tokens, self.leaves_per_block), "a plan of other leaves"
        self.flat.copy_(torch.from_numpy(_packed(planned, table, self.capacity)), non_blocking=True)


def _packed(planned: Plan, table: npt.NDArray[np.int32], capacity: Capacity) -> npt.NDArray[np.int32]:
    wanted = Capacity.of(planned, table)
    assert capacity.holds(wanted), f"a step of {wanted} does not fit in {capacity}"
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
