"""Matrix products whose weights are laid out once for the processor, where there is a way to do that."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from ponder_worker.models import int8
from ponder_worker.models.native.products import product

Linear = Callable[[torch.Tensor], torch.Tensor]
"""A product from `[num_rows, in]` to `[num_rows, out]`."""

_ROWS = 64  # the number of rows for which oneDNN chooses the layout


@dataclass(frozen=True, slots=True)
class Plain:
    """The product as torch computes it, with the weight as it is."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


def linear(
    weight: torch.Tensor, bias: torch.Tensor | None, *, as_int8: bool = False, as_float32: bool = False
) -> Linear:
    """The fastest product with this weight `[out, in]` and bias `[out]` on its device.

    On a CPU with AMX or AVX512-BF16, bfloat16 weights are laid out for C. Other bfloat16 weights and float32 ones are
    laid out for oneDNN; torch's own float32 product uses MKL, which reached less than half of oneDNN's speed on an AMD
    EPYC 9005.
    as_int8: multiply bfloat16 in int8, where `int8.check` allows it. as_float32: the caller converts the outputs to
    float32; a product that can do so by the way returns them as float32.
    """
    if as_int8:
        return int8.linear(weight, bias)
    if weight.dtype not in (torch.bfloat16, torch.float32) or weight.device.type != "cpu":
        return Plain(weight, bias)
    own = product(weight, bias, as_float32=as_float32)
    if own is not None:
        return own
    if can_prepack(weight.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        multiply: Any = torch.ops.mkldnn._linear_pointwise
        return lambda x: multiply(x, packed, bias, "none", [], "")
    return Plain(weight, bias)


def kept_weight(weight: torch.Tensor, multiply: Linear) -> torch.Tensor:
    """The part of a weight to keep beside its product: only its shape, if the product has a layout of its own."""
    return weight if isinstance(multiply, Plain) else weight.to("meta")


@cache
def can_prepack(dtype: torch.dtype) -> bool:
    """Whether torch's private operators exist here and compute what the public one does."""
    weight, rows = torch.eye(32, dtype=dtype), torch.arange(64, dtype=dtype).view(2, 32)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        found = torch.ops.mkldnn._linear_pointwise(rows, packed, weight[0], "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, F.linear(rows, weight, weight[0]))
