"""Matrix products with weights that are laid out once, where torch has that for the processor at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from ponder_worker.models import int8
from ponder_worker.models.native.product import product

Linear = Callable[[torch.Tensor], torch.Tensor]
"""`[num_rows, in]` -> `[num_rows, out]`"""

_ROWS = 64  # that the layout is chosen for


@dataclass(frozen=True, slots=True)
class Plain:
    """The product by torch, with the weight as it stands."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


def linear(weight: torch.Tensor, bias: torch.Tensor | None, *, as_int8: bool = False) -> Linear:
    """weight: `[out, in]`, bias: `[out]`. On a CPU bfloat16 is laid out anew for the C of `native` where the processor
    has AMX; elsewhere bfloat16 and float32 are for oneDNN. Torch's own float32 product is MKL's, which on an AMD EPYC
    9005 reached less than half of oneDNN's speed. as_int8: of bfloat16, where `int8.check` allows it."""
    if as_int8:
        return int8.linear(weight, bias)
    if weight.dtype not in (torch.bfloat16, torch.float32) or weight.device.type != "cpu":
        return Plain(weight, bias)
    own = product(weight, bias)
    if own is not None:
        return own
    if can_prepack(weight.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        multiply: Any = torch.ops.mkldnn._linear_pointwise
        return lambda x: multiply(x, packed, bias, "none", [], "")
    return Plain(weight, bias)


def rest(weight: torch.Tensor, multiply: Linear) -> torch.Tensor:
    """What is to be kept of a weight beside its product: its shape only, where the product has a layout of its own."""
    return weight if isinstance(multiply, Plain) else weight.to("meta")


@cache
def can_prepack(dtype: torch.dtype) -> bool:
    """The operators are private to torch: are they there, and do they compute what the public one does?"""
    weight, rows = torch.eye(32, dtype=dtype), torch.arange(64, dtype=dtype).view(2, 32)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        found = torch.ops.mkldnn._linear_pointwise(rows, packed, weight[0], "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, F.linear(rows, weight, weight[0]))
