"""Attention of siblings whose shared pages are read once, against attention of each sequence by itself."""

import pytest
import torch

from ponder_kernels.attention import paged_attention
from ponder_worker.models import attention, cascade
from ponder_worker.models.kv_pages import Pages

PAGE = 4


def step(chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two groups of five and three siblings, one sequence that decodes alone and one that prefills."""
    lengths = torch.tensor([1, 1, 9, 1, 1, 1, 1, 1, 1, 1])
    contexts = torch.tensor([43, 41, 30, 22, 42, 60, 25, 41, 21, 50])
    table = torch.arange(10 * 15).view(10, 15)[:, torch.randperm(15, generator=chance)]
    for members, num_pages in (([0, 1, 4, 7, 9], 10), ([3, 6, 8], 5)):
        table[members, :num_pages] = table[members[0], :num_pages].clone()
    return lengths, contexts, table


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_shared_pages_read_once_give_what_each_alone_would_give(
    num_kv_heads: int, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flash:
        monkeypatch.setattr(cascade, "_FLASH", None)
    monkeypatch.setattr(cascade, "_LEAST_SAVED_PAGES", 8)
    chance = torch.Generator().manual_seed(0)
    lengths, contexts, table = step(chance)
    pages = torch.randn(150, 2, num_kv_heads, PAGE, 16, generator=chance)
    q = torch.randn(int(lengths.sum()), 6, 16, generator=chance)
    alone = paged_attention.op_reference(q, pages, paged_attention.layout(lengths, contexts, table, pages=pages), 0.25)
    where = attention.layout(lengths, contexts, table, pages=pages, window=None)
    assert where.cascade is not None
    assert sorted(prefix.end - prefix.start for prefix in where.cascade.prefixes) == [3, 5]
    torch.testing.assert_close(attention.attend(q, Pages(pages), where, 0.25), alone, atol=1e-5, rtol=1e-5)


def test_a_context_that_ends_with_the_shared_pages_keeps_a_key_of_its_own() -> None:
    pages = torch.randn(20, 2, 1, PAGE, 16)
    table = torch.arange(10).expand(6, 10).contiguous()
    lengths, contexts = torch.ones(6, dtype=torch.int64), torch.full((6,), 40)
    q = torch.randn(6, 2, 16)
    where = attention.layout(lengths, contexts, table, pages=pages, window=None)
    expected = paged_attention.op_reference(
        q, pages, paged_attention.layout(lengths, contexts, table, pages=pages), 1.0
    )
    torch.testing.assert_close(attention.attend(q, Pages(pages), where, 1.0), expected, atol=1e-5, rtol=1e-5)
