"""Matrix products of int8 weights and activations, on a CPU whose oneDNN torch can reach.

A weight's rows and an activation's rows have a scale each. One scale for a whole activation would be quicker to apply,
but a sequence's result would depend on what else is in its step.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ponder_worker.models.errors import UnsupportedPrecision
from ponder_worker.models.native.quantise import Rows, rows

_ROWS = 64  # that the layout is chosen for


def check(device: torch.device) -> None:
    """Raises UnsupportedPrecision where int8 cannot be had."""
    if device.type != "cpu":
        raise UnsupportedPrecision(f"int8 is computed on a CPU only; the device is {device}: choose another dtype")
    if not can_multiply():
        raise UnsupportedPrecision(
            f"int8 needs torch's oneDNN operators (onednn.qlinear_prepack, qlinear_pointwise), and torch "
            f"{torch.__version__} has none here that compute the exact product: choose another dtype"
        )


@cache
def can_multiply() -> bool:
    """The operators are private to torch, and some processors add in 16 bits, which overflow: are they there and exact?

    A missing one, or one that refuses this processor, is an answer too.
    """
    chance = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (16, 64), dtype=torch.int8, generator=chance)
    weight[0], weight[1] = 127, -127
    x = torch.cat([weight[:3], torch.randint(-127, 128, (4, 64), dtype=torch.int8, generator=chance)])
    try:
        found = _prepare(weight, torch.ones(16))(x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, (x.int() @ weight.int().t()).bfloat16())


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """weight: `[out, in]`, bias: `[out]` -> what makes `[num_rows, out]` of `[num_rows, in]`; all bfloat16."""
    between: Rows | _Torch = rows(*weight.shape) or _Torch()
    quantised, scales = _Torch().quantise(weight)
    multiply = _prepare(quantised, scales)
    bias = None if bias is None else bias.contiguous()

    def compute(x: torch.Tensor) -> torch.Tensor:
        small, of_rows = between.quantise(x.contiguous())
        # For one row oneDNN takes milliseconds where it takes microseconds for two.
        found = multiply(small.expand(2, -1).contiguous() if len(x) == 1 else small)
        return between.rescale(found[: len(x)], of_rows, bias)

    return compute


def _prepare(weight: torch.Tensor, scales: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """weight: int8 `[out, in]`, scales: float32 `[out]` -> what makes bfloat16 of int8 rows"""
    packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), [_ROWS, weight.shape[1]])
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    pointwise: Any = torch.ops.onednn.qlinear_pointwise
    return lambda x: pointwise(x, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], "")


class _Torch:
    """As `native.quantise.Rows`."""

    def quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scales = x.float().abs().amax(1) / 127
        return (x / scales.clamp(min=1e-30)[:, None]).round().to(torch.int8), scales

    def rescale(self, x: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        out = x * scales[:, None]
        return (out if bias is None else out + bias).to(x.dtype)
