"""Inputs of the GPU benchmarks: sequences in families over pages of random keys and values, and a rotary table."""

from typing import Any

import torch
from clock import DEVICE, DTYPE, copies_of, timed

from ponder_kernels.attention import paged_attention


def rotary_table(num_positions: int, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines on the device, each float32 `[num_positions, head_dim / 2]`."""
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float64), frequency)
    return angle.cos().float().to(DEVICE), angle.sin().float().to(DEVICE)


class Family:
    """Sequences in shuffled pages. Each `size` neighbours share their first `prefix` tokens."""

    def __init__(
        self, count: int, size: int, prefix: int, own: int, queries: int = 1, *,
        heads: int = 32, kv_heads: int = 8, head_dim: int = 128, page: int = 16, copies: int | None = None,
    ) -> None:  # fmt: skip
        num = count * size
        shared, private = prefix // page, -(-own // page)
        num_pages = count * shared + num * private + 1
        order = torch.randperm(num_pages - 1) + 1
        roots = order[: count * shared].view(count, 1, shared).expand(count, size, shared).reshape(num, shared)
        self.table = torch.cat([roots, order[count * shared :].view(num, private)], dim=1)
        self.contexts = torch.full((num,), shared * page + own, dtype=torch.int64)
        self.queries = torch.full((num,), queries, dtype=torch.int64)
        shape = (num_pages, 2, kv_heads, page, head_dim)
        self.page_bytes = 2 * kv_heads * page * head_dim * DTYPE.itemsize
        self.kv_bytes = (num_pages - 1) * self.page_bytes
        self.read_alone = num * (shared + private) * self.page_bytes
        copies = copies_of(self.kv_bytes) if copies is None else copies
        self.pages = [torch.randn(shape, device=DEVICE, dtype=DTYPE) for _ in range(copies)]
        self.q = torch.randn(num * queries, heads, head_dim, device=DEVICE, dtype=DTYPE)
        self.scale = head_dim**-0.5

    def layout(self, **options: Any) -> paged_attention.Layout:
        return paged_attention.layout(
            self.queries, self.contexts, self.table, pages=self.pages[0], num_heads=self.q.shape[1],
            for_kernel=True, **options,
        )  # fmt: skip

    def time(self, **options: Any) -> float:
        where = self.layout(**options)
        return timed(
            lambda i: paged_attention.op_triton(self.q, self.pages[i], where, self.scale), copies=len(self.pages)
        )

    def error(self, **options: Any) -> float:
        """Largest difference from float64, for the first and the last sequence."""
        found = paged_attention.op_triton(self.q, self.pages[0], self.layout(**options), self.scale).double()
        groups, worst = self.q.shape[1] // self.pages[0].shape[2], 0.0
        for row in (0, len(self.table) - 1):
            count, context = int(self.queries[row]), int(self.contexts[row])
            kv = torch.cat(list(self.pages[0][self.table[row].to(DEVICE)].double()), dim=2)[:, :, :context]
            kv = kv.repeat_interleave(groups, 1)
            rows = slice(row * count, (row + 1) * count)
            score = self.q[rows].double().transpose(0, 1) @ kv[0].transpose(1, 2) * self.scale
            hidden = torch.arange(context) > torch.arange(context - count, context)[:, None]
            expected = score.masked_fill(hidden.to(DEVICE), float("-inf")).softmax(-1) @ kv[1]
            worst = max(worst, float((found[rows].transpose(0, 1) - expected).abs().max()))
        return worst
