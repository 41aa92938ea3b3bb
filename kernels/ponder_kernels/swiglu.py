# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""The gated activations silu(gate) * up and gelu(gate) * up (https://arxiv.org/abs/2002.05202).

GELU is approximated by tanh (https://arxiv.org/abs/1606.08415), as Gemma does. The kernel is bound by memory: two reads
and one write an element.
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


def op(gate_up: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
    """Computes the activation of gate, times up, in float32. Returns `[num_tokens, intermediate]` in gate_up's dtype.

    gate_up: `[num_tokens, 2 * intermediate]`, gates first. gelu: the activation is GELU instead of SiLU.
    """
    run = op_triton if gate_up.is_cuda and triton is not None else op_reference
    return run(gate_up, gelu=gelu)


def op_reference(gate_up: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
    gate, up = gate_up.float().chunk(2, dim=-1)
    activated = F.gelu(gate, approximate="tanh") if gelu else F.silu(gate)
    return (activated * up).to(gate_up.dtype)


def op_triton(gate_up: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        kernel[rows, triton.cdiv(width, BLOCK)](gate_up, out, gate_up.stride(0), width, GELU=gelu, BLOCK=BLOCK)
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(gate_up, out, stride, width, GELU: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < width
        gate = tl.load(gate_up + row * stride + column, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up + row * stride + width + column, mask=inside, other=0.0).to(tl.float32)
        power = gate
        if GELU:  # x * (1 + tanh(y)) / 2 = x / (1 + exp(-2 y))
            power = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
        found = gate / (1.0 + tl.exp(-power)) * up
        tl.store(out + row * width + column, found.to(out.dtype.element_ty), mask=inside)
