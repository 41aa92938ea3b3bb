"""The reference of paged attention against dense attention in float64."""

import torch
from cases import Case, attention_cases, close
from hypothesis import given, settings

from ponder_kernels.attention import reference


def dense(case: Case) -> torch.Tensor:
    """Attention of every sequence by itself, in float64, over keys taken from their pages one by one."""
    pages = case.pages.double()
    if case.scales is not None:
        pages = pages * case.scales[..., None].double()
    num_groups = case.q.shape[1] // pages.shape[2]
    out, row = [], 0
    for length, context, table in zip(case.queries, case.contexts, case.table, strict=True):
        kv = torch.cat([pages[max(page, 0)] for page in table], dim=2)[:, :, :context].repeat_interleave(num_groups, 1)
        q = case.q[row : row + length].double().transpose(0, 1)
        score = q @ kv[0].transpose(1, 2) * case.scale
        if case.soft_cap:
            score = case.soft_cap * (score / case.soft_cap).tanh()
        position = torch.arange(context - length, context)[:, None]
        key = torch.arange(context)
        hidden = (key > position) | (key <= position - (case.window or context))
        out.append((score.masked_fill(hidden, float("-inf")).softmax(-1) @ kv[1]).transpose(0, 1))
        row += length
    return torch.cat(out)


@settings(deadline=None, max_examples=40)
@given(attention_cases())
def test_paged_attention_equals_dense_attention(case: Case) -> None:
    if case.scales is None:
        case.pages[case.unused] = torch.nan
    found = case.reference()
    close(found, dense(case).to(found.dtype))


def test_sequences_of_a_group_differ_little_in_length_and_fit_the_limit() -> None:
    queries, pages = [1] * 60 + [40, 33, 7], [1 + index % 20 for index in range(60)] + [8, 8, 8]
    groups = reference._cut(queries, pages, most=64)
    assert sorted(index for group in groups for index in group) == list(range(63))
    for group in groups:
        counts = [pages[index] for index in group]
        assert min(counts) >= 0.6 * max(counts) - 2
        assert len(group) == 1 or max(counts) * len(group) <= 64
    assert [61, 60] not in groups
    assert sorted(groups[0]) == [60, 61]
