# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""x @ w.T of which a row has the same bits in whatever company: no split along K, one order, one shape of tile.

Bound by memory (the weights) below about two hundred rows, by the matrix rate above. It is what `batch_invariant` puts
in the place of the library's product, which picks another kernel for another number of rows.
"""

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton", "tile"]


def op(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x: `[num_rows, k]`, weight: `[n, k]`, bias: `[n]`, all of one dtype -> `[num_rows, n]`, summed in float32"""
    return op_triton(x, weight, bias) if x.is_cuda and triton is not None else op_reference(x, weight, bias)


def op_reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Is not batch-invariant itself: the library chooses by the number of rows."""
    return F.linear(x, weight, bias)


def op_triton(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    rows, columns = len(x), len(weight)
    out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    if rows:
        sizes, options = tile(x.element_size())
        kernel[triton.cdiv(rows, sizes["ROWS"]), triton.cdiv(columns, sizes["COLUMNS"])](
            x, weight, x if bias is None else bias, out, x.stride(0), weight.stride(0), rows, columns, x.shape[1],
            BIAS=bias is not None, **sizes, **options,
        )  # fmt: skip
    return out


def tile(item_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Its shape, which never depends on the number of rows, and Triton's options."""
    if item_size == 4:  # no matrix units: all of a product's operands stand in registers
        return {"ROWS": 32, "COLUMNS": 64, "K": 32}, {"num_warps": 8, "num_stages": 2}
    return {"ROWS": 64, "COLUMNS": 64, "K": 64}, {"num_warps": 4, "num_stages": 3}


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        x, weight, bias, out, x_stride, weight_stride, num_rows, num_columns, width,
        BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, K: tl.constexpr,
    ):  # fmt: skip
        row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for first in range(0, width, K):
            k = first + tl.arange(0, K)
            left = tl.load(x + row[:, None] * x_stride + k, mask=(row < num_rows)[:, None] & (k < width), other=0.0)
            right = tl.load(
                weight + column[:, None] * weight_stride + k, mask=(column < num_columns)[:, None] & (k < width),
                other=0.0,
            )  # fmt: skip
            total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
        inside = column < num_columns
        if BIAS:
            total += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        place = out + row[:, None] * num_columns + column
        tl.store(place, total.to(out.dtype.element_ty), mask=(row < num_rows)[:, None] & inside)
