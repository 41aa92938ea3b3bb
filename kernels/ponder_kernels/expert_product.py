# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Products of rows with the matrices of the experts that they are sent to, in one launch for all experts.

A *pair* is a row and one expert that it is sent to. Pairs are sorted by expert, and a program computes a tile of one
expert's pairs, so that a tile of weights is read once for several rows. The plan is made on the device, without waiting
for it, and its size depends on the number of rows alone, so a CUDA graph can hold it. The kernel is bound by memory, as
long as an expert gets fewer than about a hundred rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["Routing", "each_expert", "launch_options", "op", "op_reference", "op_triton", "route"]

NARROW, WIDE = 16, 64  # rows of a tile, for steps in which an expert gets few rows, and many


@dataclass(frozen=True, slots=True)
class Routing:
    """The pairs of a step, sorted by expert. Pair `row * num_chosen + choice` is a row's choice of this number.

    order: `[num_pairs]` int32, the pairs, those of one expert in rising order. starts: `[num_experts + 1]` int32, where
    each expert's pairs begin. tile_rows: the most pairs of a tile. tile_experts, tile_starts: `[num_tiles]` int32, the
    expert of a tile and where its pairs begin; the expert is num_experts in tiles that have no pairs.
    """

    num_chosen: int
    order: Tensor
    starts: Tensor
    tile_rows: int
    tile_experts: Tensor
    tile_starts: Tensor


def route(chosen: Tensor, num_experts: int) -> Routing:
    """Sorts the pairs of a step. chosen: `[num_rows, num_chosen]` int64, the experts of each row."""
    num_chosen, experts = chosen.shape[1], chosen.reshape(-1)
    num_pairs = len(experts)
    order = experts.sort(stable=True).indices
    counts = torch.zeros(num_experts, dtype=torch.int64, device=chosen.device)
    counts.scatter_add_(0, experts, torch.ones_like(experts))
    starts = F.pad(counts.cumsum(0), (1, 0))
    tile_rows = WIDE if num_pairs >= WIDE // 2 * num_experts else NARROW
    num_tiles = (counts + tile_rows - 1) // tile_rows
    ends = num_tiles.cumsum(0)
    tiles = torch.arange(num_pairs // tile_rows + min(num_experts, num_pairs), device=chosen.device)
    tile_experts = torch.searchsorted(ends, tiles, right=True)
    known = tile_experts.clamp(max=num_experts - 1)
    tile_starts = starts[known] + (tiles - (ends - num_tiles)[known]) * tile_rows
    parts = (part.int() for part in (order, starts, tile_experts, tile_starts))
    order, starts, tile_experts, tile_starts = parts
    return Routing(num_chosen, order, starts, tile_rows, tile_experts, tile_starts)


def op(x: Tensor, weight: Tensor, routing: Routing) -> Tensor:
    """Multiplies each pair's row by its expert's matrix. Returns `[num_pairs, out]`.

    x: `[num_rows, in]`, or `[num_pairs, in]` where each pair has a row of its own. weight: `[num_experts, out, in]`.
    """
    run = op_triton if x.is_cuda and triton is not None else op_reference
    return run(x, weight, routing)


def op_reference(x: Tensor, weight: Tensor, routing: Routing) -> Tensor:
    return each_expert(x, routing, weight.shape[1], lambda expert, rows: F.linear(rows, weight[expert]))


def each_expert(x: Tensor, routing: Routing, num_out: int, multiply: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Computes what `op` does, one expert after the other. multiply: the product of an expert, by its number."""
    out = x.new_empty((len(routing.order), num_out))
    pairs_of_row = _pairs_of_row(x, routing)
    pairs = torch.split(routing.order.long(), routing.starts.diff().tolist())
    for expert, mine in enumerate(pairs):
        if len(mine):
            out[mine] = multiply(expert, x[mine // pairs_of_row])
    return out


def op_triton(x: Tensor, weight: Tensor, routing: Routing) -> Tensor:
    num_experts, num_out, num_in = weight.shape
    out = torch.empty((len(routing.order), num_out), dtype=x.dtype, device=x.device)
    block_out, block_in, options = launch_options(routing.tile_rows, x.element_size())
    if len(out):
        kernel[len(routing.tile_experts), triton.cdiv(num_out, block_out)](
            x, weight, out, routing.order, routing.starts, routing.tile_experts, routing.tile_starts,
            _pairs_of_row(x, routing), num_experts, num_out, num_in, x.stride(0),
            BLOCK_ROWS=routing.tile_rows, BLOCK_OUT=block_out, BLOCK_IN=block_in, **options,
        )  # fmt: skip
    return out


def launch_options(tile_rows: int, item_size: int) -> tuple[int, int, dict[str, int]]:
    """Returns the tile's columns, the depth of one step of its product, and Triton's options."""
    if item_size == 4:  # float32 uses no matrix units, so the operands of a product stay in registers
        return 32, 32, {"num_warps": 4, "num_stages": 1}
    return 64, 64, {"num_warps": 4, "num_stages": 3 if tile_rows == NARROW else 2}


def _pairs_of_row(x: Tensor, routing: Routing) -> int:
    """Returns how many pairs share a row of x."""
    return 1 if len(x) == len(routing.order) else routing.num_chosen


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        x, weight, out, order, starts, tile_experts, tile_starts, pairs_of_row, num_experts, num_out, num_in, x_stride,
        BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
    ):  # fmt: skip
        """Computes some columns of one tile's pairs."""
        expert = tl.load(tile_experts + tl.program_id(0))
        if expert >= num_experts:
            return
        place = tl.load(tile_starts + tl.program_id(0)) + tl.arange(0, BLOCK_ROWS)
        alive = place < tl.load(starts + expert + 1)
        pair = tl.load(order + place, mask=alive, other=0).to(tl.int64)
        column = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
        inside = column < num_out
        rows = x + (pair // pairs_of_row * x_stride)[:, None]
        matrix = weight + (expert.to(tl.int64) * num_out + column)[:, None] * num_in
        total = tl.zeros([BLOCK_ROWS, BLOCK_OUT], tl.float32)
        for first in range(0, num_in, BLOCK_IN):
            depth = first + tl.arange(0, BLOCK_IN)
            a = tl.load(rows + depth, mask=alive[:, None] & (depth < num_in), other=0.0)
            b = tl.load(matrix + depth, mask=inside[:, None] & (depth < num_in), other=0.0)
            total = tl.dot(a, tl.trans(b), total, input_precision="ieee")
        place = out + pair[:, None] * num_out + column
        tl.store(place, total.to(out.dtype.element_ty), mask=alive[:, None] & inside)
