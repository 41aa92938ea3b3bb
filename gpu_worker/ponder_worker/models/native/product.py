"""bfloat16 matrix products in C, on processors that have AMX."""

from collections.abc import Callable

import torch

from ponder_worker.models.native.library import library, num_threads

_BUSY = 1 << 23  # multiplications; below, waking another thread takes longer than the work


def product(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """weight: `[out, in]`, bias: `[out]`, on the CPU -> what makes `[num_rows, out]` of `[num_rows, in]`, contiguous;
    None where the processor, the dtype or the sizes do not allow it."""
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

    def multiply(x: torch.Tensor) -> torch.Tensor:
        num_rows = len(x)
        x = x.contiguous()
        out = torch.empty((num_rows, num_out), dtype=torch.bfloat16)
        functions.multiply(
            x.data_ptr(), num_rows, packed.data_ptr(), None if bias is None else bias.data_ptr(), out.data_ptr(),
            num_in, num_out, num_threads(num_rows * num_in * num_out > _BUSY),
        )  # fmt: skip
        return out

    return multiply
