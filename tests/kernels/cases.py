"""Shapes that hypothesis draws, and how near is near enough."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from ponder_kernels import paged_attention

DTYPES = st.sampled_from([torch.float32, torch.float16])


@dataclass(frozen=True)
class Case:
    """unused: `[count]` pages that no table names, the padding's page 0 excepted"""

    q: torch.Tensor
    pages: torch.Tensor
    where: paged_attention.Layout
    scale: float
    contexts: list[int]
    queries: list[int]
    table: torch.Tensor
    unused: torch.Tensor


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 2e-5 if expected.dtype == torch.float32 else 4e-3
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@st.composite
def attention_cases(draw: st.DrawFn) -> Case:
    dtype = draw(DTYPES)
    num_kv_heads, num_groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 7]))
    head_dim, page_size = draw(st.sampled_from([16, 32, 48, 80])), draw(st.sampled_from([16, 32]))
    contexts = draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))
    queries = [draw(st.one_of(st.just(1), st.integers(1, context))) for context in contexts]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    most = max(-(-context // page_size) for context in contexts)
    num_pages = most * len(contexts) + 3
    order = torch.randperm(num_pages - 1, generator=generator) + 1
    table = torch.zeros(len(contexts), most, dtype=torch.int64)
    for row, context in enumerate(contexts):
        count = -(-context // page_size)
        table[row, :count] = order[row * most : row * most + count]
    if draw(st.booleans()):  # siblings share their first page
        table[:, 0] = table[0, 0]
    shape = (num_pages, 2, num_kv_heads, page_size, head_dim)
    pages = torch.randn(shape, generator=generator).to(dtype)
    q = torch.randn(sum(queries), num_kv_heads * num_groups, head_dim, generator=generator).to(dtype)
    where = paged_attention.layout(torch.tensor(queries), torch.tensor(contexts), table, pages=pages)
    unused = torch.tensor(sorted(set(range(1, num_pages)) - set(table.flatten().tolist())))
    return Case(q, pages, where, head_dim**-0.5, contexts, queries, table, unused)


@st.composite
def write_cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype, num_kv_heads = draw(DTYPES), draw(st.integers(1, 3))
    head_dim, page_size = draw(st.sampled_from([16, 24, 64])), draw(st.sampled_from([16, 32]))
    num_pages = draw(st.integers(1, 4))
    slots = draw(st.lists(st.integers(0, num_pages * page_size - 1), unique=True, min_size=1, max_size=20))
    slots += [-1] * draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(len(slots))
    kv = torch.randn(len(slots), 2 * num_kv_heads + 1, head_dim, generator=generator).to(dtype)
    rows = kv[:, 1:].view(len(slots), 2, num_kv_heads, head_dim)  # not contiguous, as beside the queries
    pages = torch.full((num_pages, 2, num_kv_heads, page_size, head_dim), -7.0, dtype=dtype)
    return rows, pages, torch.tensor(slots)


@st.composite
def norm_cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    dtype, rows, hidden = draw(DTYPES), draw(st.integers(0, 5)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(hidden)
    return torch.randn(rows, hidden, generator=generator).to(dtype), torch.randn(hidden, generator=generator).to(dtype)
