"""Rows to int8 and back in C, one pass each way: torch's operators for it take longer than the product between."""

import ctypes

import torch

from ponder_worker.models.native.library import library, num_threads

_BUSY = 1 << 17  # numbers; below, waking another thread takes longer than the work


def rows(*widths: int) -> "Rows | None":
    """For bfloat16 rows of these widths; None where C cannot do it."""
    found = library(torch.bfloat16)
    return None if found is None or any(width % 16 for width in widths) else Rows(found)


class Rows:
    """All tensors are on the CPU, contiguous."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._c = functions

    def quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[num_rows, size]` -> int8 of that shape and float32 scales, `[num_rows]`"""
        out, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
        self._c.quantise(x.data_ptr(), out.data_ptr(), scales.data_ptr(), *x.shape, num_threads(x.numel() > _BUSY))
        return out, scales

    def rescale(self, x: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x: `[num_rows, size]`, changed in place; scales: `[num_rows]`; bias: `[size]` -> x"""
        self._c.rescale(
            x.data_ptr(),
            scales.data_ptr(),
            None if bias is None else bias.data_ptr(),
            *x.shape,
            num_threads(x.numel() > _BUSY),
        )
        return x
