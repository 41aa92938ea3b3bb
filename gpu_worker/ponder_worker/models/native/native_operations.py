"""A layer's operations beside matrix products, attention and sampling, in C on torch's tensors on the CPU."""

import ctypes
from collections.abc import Sequence as Series
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from ponder_worker.models.kv_pages import Pages
from ponder_worker.models.native.library import library, num_threads
from ponder_worker.models.operations import ForwardContext, HeadNorms

_BUSY = 1 << 15  # numbers; below this, handing some to another thread takes longer than the work
_BUSY_KEYS = 1 << 17  # likewise: numbers of keys, times the queries that see them
_BUSY_SCORES = 1 << 16  # likewise, of the sampler
_MOST_QUERIES = 64  # as in attention.h
_ITEM = 5  # int32 fields of an item in attention.h


@cache
def native_operations(dtype: torch.dtype, head_dim: int, *widths: int) -> "NativeOperations | None":
    """The operations for heads of this size and rows of these widths; None where C is not available."""
    found = library(dtype)
    if found is None or head_dim % 32 or head_dim > 256 or any(width % 16 for width in widths):
        return None
    return NativeOperations(found, dtype)


@dataclass(frozen=True, slots=True)
class DecodeLayout:
    """The pages that decoding rows read together.

    contexts: `[num_rows]` int64. table: `[num_rows, max_pages]` int64. order, items, num_items: the plan, as in
    attention_plan.c. masses, mixed: working memory. num_threads: as many as the work is worth.
    """

    contexts: torch.Tensor
    table: torch.Tensor
    order: torch.Tensor
    items: torch.Tensor
    num_items: int
    masses: torch.Tensor
    mixed: torch.Tensor
    num_threads: int


@dataclass(frozen=True, slots=True)
class PrefillLayout:
    """Sequences of which a step computes several tokens each.

    The tokens of a sequence are the rows `[start, start + length)` of the step, and the last ones of its context.
    starts, lengths, contexts: `[num_sequences]` int64. table: `[num_sequences, max_pages]` int64.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    contexts: torch.Tensor
    table: torch.Tensor
    num_threads: int


class NativeOperations:
    """The `Operations` and attention in C. All tensors are on the CPU.

    They are contiguous, except that the rows of q may have any stride.
    """

    def __init__(self, functions: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._c = functions
        self._dtype = dtype
        self._tiles = functions.has_tiles()

    def decode_layout(
        self, contexts: torch.Tensor, table: torch.Tensor, num_heads: int, pages: torch.Tensor
    ) -> DecodeLayout:
        """Lay out rows that decode.

        pages: one layer's pages, `[num_pages, 2, num_kv_heads, page_size, head_dim]`; only their shape matters.
        """
        num_kv_heads, page_size, head_dim = pages.shape[2:]
        num_rows, num_groups = len(contexts), num_heads // num_kv_heads
        contexts, table = contexts.contiguous(), table.contiguous()
        order = torch.empty(num_rows, dtype=torch.int32)
        # If siblings diverge one by one, every row may be in as many items as there are rows.
        most = num_rows * (num_rows // max(1, _MOST_QUERIES // num_groups) + 3)
        items = torch.empty((most, _ITEM), dtype=torch.int32)
        num_items = self._c.plan_decode(
            num_rows, contexts.data_ptr(), table.data_ptr(), table.shape[1], page_size, num_groups,
            order.data_ptr(), items.data_ptr(),
        )  # fmt: skip
        masses = torch.empty((num_rows, num_heads, 2))
        mixed = torch.empty((num_rows, num_heads, head_dim))
        busy = int(contexts.sum()) * num_heads * head_dim > _BUSY_KEYS
        return DecodeLayout(contexts, table, order, items, num_items, masses, mixed, num_threads(busy))

    def prefill_layout(
        self,
        starts: torch.Tensor,
        lengths: torch.Tensor,
        contexts: torch.Tensor,
        table: torch.Tensor,
        *,
        num_heads: int,
        pages: torch.Tensor,
    ) -> PrefillLayout:
        """Lay out sequences that compute several tokens; the arguments are as in `decode_layout`."""
        busy = int((lengths * contexts).sum()) * num_heads * pages.shape[4] > _BUSY_KEYS
        return PrefillLayout(
            starts.contiguous(), lengths.contiguous(), contexts.contiguous(), table.contiguous(), num_threads(busy)
        )

    def attend_decode(self, q: torch.Tensor, pages: torch.Tensor, layout: DecodeLayout, scale: float) -> torch.Tensor:
        """Attend from q `[num_rows, num_heads, head_dim]`. Returns a contiguous tensor of the same shape."""
        num_rows, num_heads, head_dim = q.shape
        out = torch.empty((num_rows, num_heads, head_dim), dtype=self._dtype)
        self._c.attend_decode(
            q.data_ptr(), q.stride(0), pages.data_ptr(), layout.contexts.data_ptr(), layout.table.data_ptr(),
            layout.table.shape[1], layout.order.data_ptr(), layout.items.data_ptr(), layout.num_items, num_rows,
            num_heads, pages.shape[2], pages.shape[3], head_dim, scale, layout.num_threads, self._tiles,
            layout.masses.data_ptr(), layout.mixed.data_ptr(), out.data_ptr(), out.stride(0),
        )  # fmt: skip
        return out

    def attend_prefill(
        self, q: torch.Tensor, pages: torch.Tensor, layout: PrefillLayout, scale: float, out: torch.Tensor
    ) -> None:
        """Attend from the rows of the layout, and write the results to the same rows of out."""
        num_heads, head_dim = q.shape[1:]
        self._c.attend_prefill(
            q.data_ptr(), q.stride(0), pages.data_ptr(), layout.starts.data_ptr(), layout.lengths.data_ptr(),
            layout.contexts.data_ptr(), layout.table.data_ptr(), layout.table.shape[1], len(layout.starts), num_heads,
            pages.shape[2], pages.shape[3], head_dim, scale, layout.num_threads, self._tiles,
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

    def rotate_and_write(
        self, qkv: torch.Tensor, pages: Pages, context: ForwardContext, norms: HeadNorms
    ) -> torch.Tensor:
        num_kv_heads, page_size, head_dim = pages.numbers.shape[2:]
        heads = qkv.view(len(qkv), -1, head_dim)
        num_heads = heads.shape[1] - 2 * num_kv_heads
        self._c.rotate_and_write(
            qkv.data_ptr(), pages.numbers.data_ptr(), context.positions.data_ptr(), context.slots.data_ptr(),
            context.cosine.data_ptr(), context.sine.data_ptr(),
            *(None if norm is None else norm.data_ptr() for norm in norms), context.epsilon,
            len(qkv), num_heads, num_kv_heads, page_size, head_dim,
            num_threads(qkv.numel() > _BUSY),
        )  # fmt: skip
        return heads[:, :num_heads]

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        num_rows, width = gate_up.shape
        out = torch.empty((num_rows, width // 2), dtype=self._dtype)
        self._c.gate(gate_up.data_ptr(), out.data_ptr(), num_rows, width // 2, num_threads(gate_up.numel() > _BUSY))
        return out


@dataclass(frozen=True, slots=True)
class RowMasks:
    """The tokens that some rows of a step may sample.

    rows: the numbers of the rows. bits: uint8 `[len(rows), num_bytes]`, one bit for each token, the lowest first; it is
    set where the token may follow. num_bytes is a multiple of four.
    """

    rows: Series[int]
    bits: torch.Tensor

    def pointers(self, num_rows: int) -> tuple[int, int, npt.NDArray[np.int64]]:
        """Returns what C takes: where the bits are, num_bytes, and the mask of each row or -1, `[num_rows]`."""
        of_rows = np.full(num_rows, -1)
        of_rows[self.rows] = np.arange(len(self.rows))
        return self.bits.data_ptr(), self.bits.shape[1], of_rows


class NativeSampler:
    """Draws tokens and computes their log-probabilities. Scores and logits are float32 `[num_rows, vocabulary]`."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._c = functions

    def draw(
        self,
        scores: torch.Tensor,
        temperature: torch.Tensor,
        keys: npt.NDArray[np.uint64],
        masks: RowMasks | None = None,
    ) -> torch.Tensor:
        """Token ids `[num_rows]`: in each row the largest of scores / temperature + Gumbel noise.

        temperature: float32 `[num_rows]`; 0 means no noise. keys: `[num_rows]`, the keys of the noise.
        """
        scores = scores.contiguous()
        tokens = torch.empty(len(scores), dtype=torch.int64)
        bits, num_bytes, of_rows = (None, 0, None) if masks is None else masks.pointers(len(scores))
        self._c.draw(
            scores.data_ptr(), *scores.shape, temperature.data_ptr(), keys.ctypes.data,
            bits, num_bytes, None if of_rows is None else of_rows.ctypes.data,
            tokens.data_ptr(), num_threads(scores.numel() > _BUSY_SCORES),
        )  # fmt: skip
        return tokens

    def exclude(self, scores: torch.Tensor, masks: RowMasks) -> None:
        """Sets what must not be sampled to -inf, in place. The rows may have any stride."""
        assert scores.stride(1) == 1
        assert scores.dtype == torch.float32
        bits, num_bytes, of_rows = masks.pointers(len(scores))
        self._c.exclude(
            scores.data_ptr(), *scores.shape, scores.stride(0), bits, num_bytes, of_rows.ctypes.data,
            num_threads(scores.numel() > _BUSY_SCORES),
        )  # fmt: skip

    def logprobs(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Natural log-probabilities of one token a row: float32 `[num_rows]`."""
        logits, tokens = logits.contiguous(), tokens.contiguous()
        found = torch.empty(len(logits))
        self._c.logprobs(
            logits.data_ptr(), *logits.shape, tokens.data_ptr(), found.data_ptr(),
            num_threads(logits.numel() > 4 * _BUSY_SCORES),
        )  # fmt: skip
        return found


def native_sampler(device: torch.device) -> NativeSampler | None:
    """The sampler for this device; None where C is not available."""
    functions = library(torch.float32) if device.type == "cpu" else None
    return None if functions is None else NativeSampler(functions)
