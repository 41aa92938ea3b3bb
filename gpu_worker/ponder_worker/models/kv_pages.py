"""The keys and values of a layer, stored in pages, and the layers that share a page."""

from collections.abc import Sequence as Series
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")

FP8 = torch.float8_e4m3fn
_MOST_GROUPS = 8  # every group costs a step the host work of another page table


def vector_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Number of bytes of one token's key or value in one head, its scale included."""
    return head_dim * dtype.itemsize + (torch.float32.itemsize if dtype == FP8 else 0)


@dataclass(frozen=True, slots=True)
class Pages:
    """Keys and values in pages, with their scales if they are float8.

    numbers: `[num_pages, 2, num_kv_heads, page_size, head_dim]`, keys before values.
    scales: float32 `[num_pages, 2, num_kv_heads, page_size]`, the factors of float8 numbers; None for other dtypes.
    """

    numbers: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def zeros(
        cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, pinned: bool = False
    ) -> "Pages":
        """Pages of zeros. shape: the shape of the numbers."""
        numbers = torch.zeros(shape, dtype=dtype, device=device, pin_memory=pinned)
        return cls(numbers, _zero_scales(numbers, pinned=pinned))

    @classmethod
    def over(cls, raw: torch.Tensor, like: "Pages") -> "Pages":
        """Pages whose numbers are the bytes `raw`, in shape and dtype like the given ones. New scales are zero."""
        numbers = raw.view(like.numbers.dtype).view(-1, *like.numbers.shape[1:])
        return cls(numbers, _zero_scales(numbers))

    @property
    def nbytes(self) -> int:
        """Bytes of numbers and scales together."""
        return sum(part.nbytes for part in self.parts)

    @property
    def parts(self) -> tuple[torch.Tensor, ...]:
        """The tensors that make up the pages. Float8 numbers appear as bytes, because torch cannot index float8."""
        if self.scales is None:
            return (self.numbers,)
        return self.numbers.view(torch.uint8), self.scales

    def layers(self, count: int, stride: int) -> tuple["Pages", ...]:
        """Views of these pages for `count` layers, each of which begins `stride` pages after the one before it."""
        size = len(self.numbers) - (count - 1) * stride
        starts = range(0, count * stride, stride)
        return tuple(
            Pages(
                self.numbers[start : start + size], None if self.scales is None else self.scales[start : start + size]
            )
            for start in starts
        )


def _zero_scales(numbers: torch.Tensor, *, pinned: bool = False) -> torch.Tensor | None:
    """Scales of zero, because what was never written must still be finite."""
    if numbers.dtype != FP8:
        return None
    return torch.zeros(numbers.shape[:-1], device=numbers.device, pin_memory=pinned)


@dataclass(frozen=True, slots=True)
class LayerGroups:
    """The division of a model's layers into groups of equal size, each with page tables of its own.

    A page holds the keys and values of one group's layers, so that a group whose layers all have a window can give
    pages back that other groups still need. Most models have a single group, of all layers.
    windows: `[num_groups]`, the tokens that a group looks back on; None means all. Groups with a window come first.
    group_of_layer, place_of_layer: `[num_layers]`, the group of a layer, and its place among those of a page.
    """

    windows: tuple[int | None, ...]
    group_of_layer: tuple[int, ...]
    place_of_layer: tuple[int, ...]
    layers_per_page: int

    @classmethod
    def of(cls, windows: Series[int | None], context_tokens: int) -> "LayerGroups":
        """Divides layers with these windows. One that is as wide as the context is none.

        A page has as many layers as divide those that see everything without a rest: their pages are kept for as long
        as a sequence grows. The last group with a window may have fewer layers than its pages have room for. Where the
        layers could be divided into very many small groups only, they stay together, and keep all pages.
        """
        widths = [window if window is not None and window < context_tokens else None for window in windows]
        local = [layer for layer, width in enumerate(widths) if width is not None]
        others = [layer for layer, width in enumerate(widths) if width is None]
        widest = max((width for width in widths if width is not None), default=None)
        sizes = [size for size in range(1, len(local) + 1) if len(others) % size == 0]
        num_local, num_others = -(-len(local) // sizes[-1]) if sizes else 0, len(others) // sizes[-1] if sizes else 1
        if not (local and others) or num_local + num_others > _MOST_GROUPS:
            return cls((None if others else widest,), (0,) * len(widths), tuple(range(len(widths))), len(widths))
        first_other = num_local * sizes[-1]
        slots = dict(zip(local, range(len(local)), strict=True))
        slots |= {layer: first_other + index for index, layer in enumerate(others)}
        return cls(
            (widest,) * num_local + (None,) * num_others,
            tuple(slots[layer] // sizes[-1] for layer in range(len(widths))),
            tuple(slots[layer] % sizes[-1] for layer in range(len(widths))),
            sizes[-1],
        )

    @property
    def num_groups(self) -> int:
        return len(self.windows)

    def of_group(self, group: int, values: Series[T]) -> list[T]:
        """Returns those of a group's layers. values: `[num_layers]`."""
        return [value for value, its_group in zip(values, self.group_of_layer, strict=True) if its_group == group]
