"""Matrix products of int8 weights and activations, on a CPU where torch offers oneDNN's operators for them.

Every row of a weight and every row of an activation has a scale of its own. One scale for a whole activation would be
faster, but then a sequence's result would depend on the other sequences of its step.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ponder_worker.models.model_error import UnsupportedPrecision
from ponder_worker.models.native.products import RowQuantiser, row_quantiser

_has_amx: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)  # private to torch
_ZERO = 0 if _has_amx() else 128
"""The value for 0 in a row that is multiplied: without AMX, oneDNN multiplies only unsigned rows fast."""
_SLOW_S = 0.001
"""Seconds for a product of a few rows. The reference took eight times as long for two of them, and more for more."""
_ROWS = 64  # the number of rows for which oneDNN chooses the layout


def check(device: torch.device) -> None:
    """Raises UnsupportedPrecision if int8 is not available on this device."""
    if device.type != "cpu":
        raise UnsupportedPrecision(f"int8 is computed on a CPU only; the device is {device}: choose another dtype")
    if not can_multiply():
        raise UnsupportedPrecision(
            f"int8 needs torch's oneDNN operators (onednn.qlinear_prepack, qlinear_pointwise), but those of torch "
            f"{torch.__version__} are missing, inexact or slow on this machine: choose another dtype"
        )


@cache
def can_multiply() -> bool:
    """Whether torch's operators exist here, are exact and are fast.

    They are private to torch, and on some processors they add in 16 bits, which overflow. A missing operator, or one
    that refuses this processor, counts as no. Where oneDNN has no other code for a number of rows, as without AVX-512,
    it takes its reference, which is exact and takes a thousand times as long.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (16, 64), dtype=torch.int8, generator=generator)
    weight[0], weight[1] = 127, -127
    x = torch.cat([weight[:3], torch.randint(-127, 128, (4, 64), dtype=torch.int8, generator=generator)])
    try:
        found = _prepare(weight, torch.ones(16))(x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, (x.int() @ weight.int().t()).bfloat16()) and _is_fast()


def _is_fast() -> bool:
    """Whether no number of rows takes the reference of oneDNN."""
    multiply = _prepare(torch.ones(128, 96, dtype=torch.int8), torch.ones(128))
    for num_rows in (2, _ROWS, 100):
        x = torch.ones(num_rows, 96, dtype=torch.int8)
        if min(_seconds(multiply, x) for _ in range(5)) > _SLOW_S:
            return False
    return True


def _seconds(multiply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    began = time.perf_counter()
    multiply(x)
    return time.perf_counter() - began


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """A product with this weight `[out, in]` and bias `[out]`: `[num_rows, in]` to `[num_rows, out]`, all bfloat16."""
    quantiser: RowQuantiser | _TorchQuantiser = row_quantiser(*weight.shape) or _TorchQuantiser()
    quantised, scales = _TorchQuantiser().quantise(weight)
    multiply = _prepare(quantised, scales)
    bias = None if bias is None else bias.contiguous()

    def compute(x: torch.Tensor) -> torch.Tensor:
        rows, row_scales = quantiser.quantise(x.contiguous())
        # oneDNN takes milliseconds for one row, but microseconds for two.
        found = multiply(rows.expand(2, -1).contiguous() if len(x) == 1 else rows)
        return quantiser.rescale(found[: len(x)], row_scales, bias)

    return compute


def _prepare(weight: torch.Tensor, scales: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A product of int8 rows with an int8 weight `[out, in]` of float32 scales `[out]`. The result is bfloat16."""
    packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), [_ROWS, weight.shape[1]])
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    pointwise: Any = torch.ops.onednn.qlinear_pointwise

    def multiply(x: torch.Tensor) -> torch.Tensor:
        rows = x.view(torch.uint8) ^ _ZERO if _ZERO else x  # flipping the highest bit adds 128
        shared: tuple[Any, ...] = (packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], "")
        found: torch.Tensor = pointwise(rows, 1.0, _ZERO, *shared)
        return found

    return multiply


class _TorchQuantiser:
    """The operations of `native.products.RowQuantiser` in torch."""

    def quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scales = x.float().abs().amax(1) / 127
        return (x / scales.clamp(min=1e-30)[:, None]).round().to(torch.int8), scales

    def rescale(self, x: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        out = x * scales[:, None]
        return (out if bias is None else out + bias).to(x.dtype)
