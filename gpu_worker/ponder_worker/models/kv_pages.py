"""The keys and values of a layer, stored in pages."""

from dataclasses import dataclass

import torch

FP8 = torch.float8_e4m3fn


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
