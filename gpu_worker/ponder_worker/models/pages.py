"""Keys and values of a layer, as they stand in pages."""

from dataclasses import dataclass

import torch

FP8 = torch.float8_e4m3fn


def vector_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Of one token's key or value in one head, its scale included."""
    return head_dim * dtype.itemsize + (torch.float32.itemsize if dtype == FP8 else 0)


@dataclass(frozen=True, slots=True)
class Pages:
    """numbers: `[num_pages, 2, num_kv_heads, page_size, head_dim]`; scales: what float8 numbers are multiplied by, one
    a token and head: float32 `[num_pages, 2, num_kv_heads, page_size]`, None where numbers are of another dtype.
    """

    numbers: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def zeros(
        cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, pinned: bool = False
    ) -> "Pages":
        numbers = torch.zeros(shape, dtype=dtype, device=device, pin_memory=pinned)
        return cls(numbers, _no_scales(numbers, pinned=pinned))

    @classmethod
    def over(cls, raw: torch.Tensor, like: "Pages") -> "Pages":
        """As many as the bytes `raw` hold the numbers of; their scales stand apart, zeroed."""
        numbers = raw.view(like.numbers.dtype).view(-1, *like.numbers.shape[1:])
        return cls(numbers, _no_scales(numbers))

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    @property
    def parts(self) -> tuple[torch.Tensor, ...]:
        """What is to be copied of a page; float8 as bytes, which torch can index."""
        if self.scales is None:
            return (self.numbers,)
        return self.numbers.view(torch.uint8), self.scales

    def layers(self, count: int, stride: int) -> tuple["Pages", ...]:
        """These pages as each of so many layers sees them, which begins `stride` pages behind the one before it."""
        size = len(self.numbers) - (count - 1) * stride
        starts = range(0, count * stride, stride)
        return tuple(
            Pages(
                self.numbers[start : start + size], None if self.scales is None else self.scales[start : start + size]
            )
            for start in starts
        )


def _no_scales(numbers: torch.Tensor, *, pinned: bool = False) -> torch.Tensor | None:
    """Zeros: what was never written must be finite."""
    if numbers.dtype != FP8:
        return None
    return torch.zeros(numbers.shape[:-1], device=numbers.device, pin_memory=pinned)
