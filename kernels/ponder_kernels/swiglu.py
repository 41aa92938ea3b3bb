# ruff: noqa: N803 -- constexpr names and argument lists of kernels are Triton's way
"""The gated activation silu(gate) * up (https://arxiv.org/abs/2002.05202).

The kernel is bound by memory: two reads and one write an element.
"""

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


BLOCK = 1024


def op(gate_up: torch.Tensor) -> torch.Tensor:
    """Compute silu(gate) * up in float32. Returns `[num_tokens, intermediate]` in the dtype of gate_up.

    gate_up: `[num_tokens, 2 * intermediate]`, gates first.
    """
    return op_triton(gate_up) if gate_up.is_cuda and triton is not None else op_reference(gate_up)


def op_reference(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def op_triton(gate_up: torch.Tensor) -> torch.Tensor:
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        kernel[rows, triton.cdiv(width, BLOCK)](gate_up, out, gate_up.stride(0), width, BLOCK=BLOCK)
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(gate_up, out, stride, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < width
        gate = tl.load(gate_up + row * stride + column, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up + row * stride + width + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * width + column, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)
