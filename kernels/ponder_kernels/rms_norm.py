# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Root-mean-square normalisation (https://arxiv.org/abs/1910.07467).

The kernel is bound by memory: one read and one write a row. One program computes a row and sums in a fixed order, so
the bits of a row do not depend on the other rows.
"""

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


def op(x: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """Normalises every row. Returns `[num_tokens, hidden]`.

    x: `[num_tokens, hidden]`. weight: `[hidden]` of the same dtype or float32. residual: `[num_tokens, hidden]`; x is
    added to it in place, and the sum is normalised.
    """
    run = op_triton if x.is_cuda and triton is not None else op_reference
    return run(x, weight, epsilon, residual)


def op_reference(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    if residual is not None:
        x = residual.add_(x)
    if weight.dtype != x.dtype:
        return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), epsilon).to(x.dtype)
    return F.rms_norm(x, (x.shape[-1],), weight, epsilon)


def op_triton(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    rows, hidden = x.shape
    out = torch.empty_like(x)
    if rows:
        other = x if residual is None else residual
        kernel[(rows,)](
            x, weight, out, other, x.stride(0), out.stride(0), other.stride(0), hidden, epsilon,
            ADD=residual is not None, BLOCK=triton.next_power_of_2(hidden),
        )  # fmt: skip
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        x, weight, out, residual, x_stride, out_stride, residual_stride, hidden, epsilon,
        ADD: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, BLOCK)
        inside = column < hidden
        value = tl.load(x + row * x_stride + column, mask=inside, other=0.0)
        if ADD:
            place = residual + row * residual_stride + column
            value = (tl.load(place, mask=inside, other=0.0).to(tl.float32) + value.to(tl.float32)).to(value.dtype)
            tl.store(place, value, mask=inside)
        value = value.to(tl.float32)
        scale = tl.rsqrt(tl.sum(value * value) / hidden + epsilon)
        gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * out_stride + column, (value * scale * gain).to(out.dtype.element_ty), mask=inside)
