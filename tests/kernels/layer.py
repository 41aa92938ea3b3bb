"""One attention layer built from Triton kernels, over a pool of pages of its own."""

from dataclasses import dataclass, field

import torch
from cases import rotary_table

from ponder_kernels import rms_norm, write_qkv
from ponder_kernels.attention import paged_attention

PAGE = 16


def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply row by row, so that no row's bits depend on how many rows there are."""
    return torch.stack([weight @ row for row in x])


@dataclass
class Pool:
    pages: torch.Tensor
    table: torch.Tensor
    lengths: list[int]


@dataclass
class Layer:
    """A layer of two query heads over one kv head, of dimension 16."""

    dtype: torch.dtype
    hidden: int = 32
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(5))

    def __post_init__(self) -> None:
        shapes = {"norm": (self.hidden,), "inner": (64, self.hidden), "outer": (self.hidden, 32)}
        weights = {name: torch.randn(shape, generator=self.generator) * 0.2 for name, shape in shapes.items()}
        self.norm, self.inner, self.outer = (weight.to(self.dtype) for weight in weights.values())
        self.tables = rotary_table(128, 16, 10000.0)

    def pool(self, most: list[int]) -> Pool:
        """Pages for sequences of at most this many tokens, none of them computed yet."""
        width = -(-max(most) // PAGE)
        table = torch.arange(len(most) * width).flip(0).view(len(most), width)
        return Pool(torch.zeros(table.numel(), 2, 1, PAGE, 16).to(self.dtype), table, [0] * len(most))

    def step(self, pool: Pool, rows: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The layer's output for the next tokens `[count, hidden]` of each sequence."""
        counts = [len(row) for row in rows]
        positions = torch.cat([torch.arange(n, n + c) for n, c in zip(pool.lengths, counts, strict=True)])
        pool.lengths = [n + c for n, c in zip(pool.lengths, counts, strict=True)]
        owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts))
        slots = pool.table[owner, positions // PAGE] * PAGE + positions % PAGE
        x = torch.cat(rows)
        heads = multiply(rms_norm.op_triton(x, self.norm, 1e-5), self.inner).view(len(x), 4, 16)
        write_qkv.op_triton(heads, write_qkv.Rotation(positions, *self.tables), pool.pages, slots)
        where = paged_attention.layout(
            torch.tensor(counts), torch.tensor(pool.lengths), pool.table, pages=pool.pages, num_heads=2,
            leaf_tokens=16, leaves_per_block=2, for_kernel=True,
        )  # fmt: skip
        mixed = paged_attention.op_triton(heads[:, :2], pool.pages, where, 0.25)
        return torch.split(multiply(mixed.reshape(len(x), 32), self.outer), counts)
