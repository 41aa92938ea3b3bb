"""Matrix products in C: bfloat16 products on AMX or AVX512-BF16, and the int8 rows of other products."""

import ctypes
from collections.abc import Callable

import torch

from ponder_worker.models.native.library import library, num_threads

_BUSY_PRODUCT = 1 << 21  # multiplications; below this, handing some to another thread takes longer than the work
_BUSY_ROWS = 1 << 15  # numbers; likewise


def product(
    weight: torch.Tensor, bias: torch.Tensor | None, *, as_float32: bool = False
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A product with this weight `[out, in]` and bias `[out]` on the CPU: `[num_rows, in]` to `[num_rows, out]`.

    as_float32: convert the outputs, which are rounded to bfloat16 all the same, without a pass of its own. Returns None
    if the processor, the dtype or the sizes do not allow it.
    """
    num_out, num_in = weight.shape
    functions = library(weight.dtype) if weight.dtype == torch.bfloat16 else None
    if functions is None or not functions.has_products():
        return None
    if num_out % 16 or num_in % 32:
        return None
    weight = weight.contiguous()
    packed = torch.empty(-(-num_out // 32) * 32 * num_in, dtype=torch.bfloat16)
    functions.pack(weight.data_ptr(), packed.data_ptr(), num_out, num_in)
    bias = None if bias is None else bias.contiguous()
    use_tiles = functions.has_tiles()

    def multiply(x: torch.Tensor) -> torch.Tensor:
        num_rows = len(x)
        x = x.contiguous()
        out = torch.empty((num_rows, num_out), dtype=torch.float32 if as_float32 else torch.bfloat16)
        functions.multiply(
            x.data_ptr(), num_rows, packed.data_ptr(), None if bias is None else bias.data_ptr(), out.data_ptr(),
            as_float32, num_in, num_out, num_threads(num_rows * num_in * num_out > _BUSY_PRODUCT), use_tiles,
        )  # fmt: skip
        return out

    return multiply


def row_quantiser(*widths: int) -> "RowQuantiser | None":
    """The quantiser for bfloat16 rows of these widths; None where C is not available."""
    found = library(torch.bfloat16)
    return None if found is None or any(width % 16 for width in widths) else RowQuantiser(found)


class RowQuantiser:
    """Converts rows to int8 and back, in one pass each. Torch's operators take longer than the product in between.

    All tensors are on the CPU and contiguous.
    """

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._c = functions

    def quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantise rows `[num_rows, size]` to int8 of the same shape, with float32 scales `[num_rows]`."""
        out, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
        self._c.quantise(x.data_ptr(), out.data_ptr(), scales.data_ptr(), *x.shape, num_threads(x.numel() > _BUSY_ROWS))
        return out, scales

    def rescale(self, x: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Multiply rows `[num_rows, size]` by their scales `[num_rows]` and add bias `[size]`, in place."""
        self._c.rescale(
            x.data_ptr(),
            scales.data_ptr(),
            None if bias is None else bias.data_ptr(),
            *x.shape,
            num_threads(x.numel() > _BUSY_ROWS),
        )
        return x
