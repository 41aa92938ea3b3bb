# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Root-mean-square normalisation (https://arxiv.org/abs/1910.07467). Bound by memory: one read, one write a row."""

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


def op(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """x: `[num_tokens, hidden]`, weight: `[hidden]` of the same dtype -> `[num_tokens, hidden]`"""
    return op_triton(x, weight, epsilon) if x.is_cuda and triton is not None else op_reference(x, weight, epsilon)


def op_reference(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, epsilon)


def op_triton(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    rows, hidden = x.shape
    out = torch.empty_like(x)
    if rows:
        kernel[(rows,)](x, weight, out, x.stride(0), out.stride(0), hidden, epsilon, triton.next_power_of_2(hidden))
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        x, weight, out, x_stride, out_stride, hidden, epsilon, BLOCK: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, BLOCK)
        inside = column < hidden
        value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(value * value) / hidden + epsilon)
        gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * out_stride + column, (value * scale * gain).to(out.dtype.element_ty), mask=inside)
