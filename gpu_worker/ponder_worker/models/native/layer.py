"""The operations between a layer's matrix products in C, over torch's tensors."""

import ctypes
from dataclasses import dataclass
from functools import cache

import torch

from ponder_worker.models.native.library import library, num_threads
from ponder_worker.models.operations import Norms
from ponder_worker.models.pages import Pages
from ponder_worker.models.step import Step

_BUSY = 1 << 17  # numbers; below, waking another thread takes longer than the work
_MOST_QUERIES = 64  # as attention.h has it
_ITEM = 5  # int32


@cache
def native(dtype: torch.dtype, head_dim: int, *widths: int) -> "Native | None":
    """For heads of this size and rows of these widths; None where C cannot do it."""
    found = library(dtype)
    if found is None or head_dim % 32 or head_dim > 256 or any(width % 16 for width in widths):
        return None
    return Native(found, dtype)


@dataclass(frozen=True, slots=True)
class Reading:
    """Which pages decoding rows read together. contexts: `[num_rows]`, table: `[num_rows, max_pages]`, both int64;
    masses, mixed: room to work in; num_threads: worth so many."""

    contexts: torch.Tensor
    table: torch.Tensor
    order: torch.Tensor
    items: torch.Tensor
    num_items: int
    masses: torch.Tensor
    mixed: torch.Tensor
    num_threads: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """Sequences of which a step computes several tokens each: rows `[starts, starts + lengths)` of it, the last ones of
    their contexts. starts, lengths, contexts: `[num_sequences]`, table: `[num_sequences, max_pages]`; int64 all.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    contexts: torch.Tensor
    table: torch.Tensor
    num_threads: int


class Native:
    """`Operations`, and attention. All tensors are on the CPU, contiguous but for their first dimension where nothing
    else is said."""

    def __init__(self, functions: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._c = functions
        self._dtype = dtype
        self._tiles = functions.has_products()

    def plan(self, contexts: torch.Tensor, table: torch.Tensor, num_heads: int, pages: torch.Tensor) -> Reading:
        """pages: one layer's, `[num_pages, 2, num_kv_heads, page_size, head_dim]`; only its shape is looked at."""
        num_kv_heads, page_size, head_dim = pages.shape[2:]
        num_rows, num_groups = len(contexts), num_heads // num_kv_heads
        contexts, table = contexts.contiguous(), table.contiguous()
        order = torch.empty(num_rows, dtype=torch.int32)
        # Siblings that part one by one: every row may stand in as many items as there are rows.
        most = num_rows * (num_rows // max(1, _MOST_QUERIES // num_groups) + 3)
        items = torch.empty((most, _ITEM), dtype=torch.int32)
        num_items = self._c.plan(
            num_rows, contexts.data_ptr(), table.data_ptr(), table.shape[1], page_size, num_groups,
            order.data_ptr(), items.data_ptr(),
        )  # fmt: skip
        masses = torch.empty((num_rows, num_heads, 2))
        mixed = torch.empty((num_rows, num_heads, head_dim))
        busy = int(contexts.sum()) * num_heads * head_dim > 4 * _BUSY
        return Reading(contexts, table, order, items, num_items, masses, mixed, num_threads(busy))

    def chunks(
        self,
        starts: torch.Tensor,
        lengths: torch.Tensor,
        contexts: torch.Tensor,
        table: torch.Tensor,
        *,
        num_heads: int,
        pages: torch.Tensor,
    ) -> Chunks:
        """As `plan`, for sequences that do not only decode."""
        busy = int((lengths * contexts).sum()) * num_heads * pages.shape[4] > 4 * _BUSY
        return Chunks(
            starts.contiguous(), lengths.contiguous(), contexts.contiguous(), table.contiguous(), num_threads(busy)
        )

    def attend(self, q: torch.Tensor, pages: torch.Tensor, where: Reading, scale: float) -> torch.Tensor:
        """q: `[num_rows, num_heads, head_dim]`, rows of any stride -> the same shape, contiguous"""
        num_rows, num_heads, head_dim = q.shape
        out = torch.empty((num_rows, num_heads, head_dim), dtype=self._dtype)
        self._c.attend(
            q.data_ptr(), q.stride(0), pages.data_ptr(), where.contexts.data_ptr(), where.table.data_ptr(),
            where.table.shape[1], where.order.data_ptr(), where.items.data_ptr(), where.num_items, num_rows, num_heads,
            pages.shape[2], pages.shape[3], head_dim, scale, where.num_threads, self._tiles, where.masses.data_ptr(),
            where.mixed.data_ptr(), out.data_ptr(), out.stride(0),
        )  # fmt: skip
        return out

    def attend_chunks(
        self, q: torch.Tensor, pages: torch.Tensor, where: Chunks, scale: float, out: torch.Tensor
    ) -> None:
        """As `attend`, of which it fills the rows of `where`."""
        num_heads, head_dim = q.shape[1:]
        self._c.attend_chunks(
            q.data_ptr(), q.stride(0), pages.data_ptr(), where.starts.data_ptr(), where.lengths.data_ptr(),
            where.contexts.data_ptr(), where.table.data_ptr(), where.table.shape[1], len(where.starts), num_heads,
            pages.shape[2], pages.shape[3], head_dim, scale, where.num_threads, self._tiles,
            out.data_ptr(), out.stride(0),
        )  # fmt: skip

    def add_and_normalise(
        self, hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        out = torch.empty_like(hidden)
        self._c.add_and_normalise(
            hidden.data_ptr(), delta.data_ptr() if delta is not None else None, weight.data_ptr(), out.data_ptr(),
            *hidden.shape, epsilon, num_threads(hidden.numel() > _BUSY),
        )  # fmt: skip
        return out

    def rotate_and_write(self, fused: torch.Tensor, pages: Pages, step: Step, norms: Norms) -> torch.Tensor:
        num_kv_heads, page_size, head_dim = pages.numbers.shape[2:]
        heads = fused.view(len(fused), -1, head_dim)
        num_heads = heads.shape[1] - 2 * num_kv_heads
        self._c.rotate_and_write(
            fused.data_ptr(), pages.numbers.data_ptr(), step.positions.data_ptr(), step.slots.data_ptr(),
            step.cosine.data_ptr(), step.sine.data_ptr(),
            *(None if norm is None else norm.data_ptr() for norm in norms), step.epsilon,
            len(fused), num_heads, num_kv_heads, page_size, head_dim,
            num_threads(fused.numel() > _BUSY),
        )  # fmt: skip
        return heads[:, :num_heads]

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        num_rows, width = both.shape
        out = torch.empty((num_rows, width // 2), dtype=self._dtype)
        self._c.gate(both.data_ptr(), out.data_ptr(), num_rows, width // 2, num_threads(both.numel() > _BUSY))
        return out
