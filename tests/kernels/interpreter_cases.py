"""Every Triton kernel against its reference in Triton's interpreter; run by test_interpreter.py in a new process.

bfloat16 is left out: the interpreter's dot product of it is silently wrong.
"""

from dataclasses import replace

import numpy as np
import torch
from cases import (
    DTYPES,
    Case,
    QkvCase,
    WriteCase,
    attention_cases,
    close,
    close_pages,
    norm_cases,
    poisoned,
    qkv_cases,
    sample_cases,
    write_cases,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer import Layer

from ponder_kernels import copy_pages, matmul, rms_norm, rope, sample, step_score, swiglu, write_kv, write_qkv
from ponder_kernels.attention.attention_layout import Layout
from ponder_kernels.attention.attention_plan import plan
from ponder_kernels.attention.attention_planner import Planner
from ponder_kernels.attention.attention_work import Capacity, Work


def _matmul(a: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.einsum("...ik,...kj->...ij", a, b, dtype=dtype)


# The interpreter's dot product. Some BLAS kernels give a row other bits in another place of a tile; a GPU's do not.
np.matmul = _matmul  # type: ignore[assignment]

few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(attention_cases())
def test_paged_attention_equals_its_reference(case: Case) -> None:
    if case.scales is None:
        case.pages[case.unused] = torch.nan  # nobody may read what no page table names
    with poisoned():
        found = case.kernel()
    close(found, case.reference())


@settings(few, max_examples=8)
@given(attention_cases(longest=90, head_dims=(80, 96, 128, 256), most=3))
def test_paged_attention_of_large_heads_equals_its_reference(case: Case) -> None:
    with poisoned():
        found = case.kernel()
    close(found, case.reference())


@settings(few, max_examples=8)
@given(attention_cases(longest=300, head_dims=(16,), family=True))
def test_a_family_has_the_same_bits_grouped_and_ungrouped(case: Case) -> None:
    with poisoned():
        together = case.kernel(share=True, batch_invariant=True, leaf_tokens=32, leaves_per_block=4)
        apart = case.kernel(share=False, batch_invariant=True, leaf_tokens=32, leaves_per_block=4)
    assert torch.equal(together, apart)
    close(together, case.reference())


@settings(few, max_examples=8)
@given(attention_cases(longest=200, head_dims=(16,)), st.integers(0, 3))
def test_a_query_has_the_same_bits_in_company_and_alone_and_computed_again(case: Case, row: int) -> None:
    row %= len(case.queries)
    options = {"batch_invariant": True, "leaf_tokens": 32, "leaves_per_block": 2}
    together = case.kernel(**options).split(case.queries)[row]
    q, table = case.q.split(case.queries)[row], case.table[row : row + 1]
    alone = replace(case, q=q, queries=[len(q)], contexts=[case.contexts[row]], table=table)
    assert torch.equal(alone.kernel(**options), together)
    last = replace(alone, q=q[-1:], queries=[1])  # as a decode would have it
    assert torch.equal(last.kernel(**options), together[-1:])


@settings(few, max_examples=6)
@given(attention_cases(longest=200, head_dims=(16,), family=True), st.integers(1, 40))
def test_a_plan_made_ahead_in_a_static_buffer_has_the_same_bits_when_sequences_have_grown(case: Case, by: int) -> None:
    """As a captured graph runs: one buffer, filled anew only with the positions, while pages are added."""
    options = {"tile_queries": 4, "window": case.window, "leaf_tokens": 32, "leaves_per_block": 4}
    lengths, table = [part.numpy() for part in case.lengths[:2]], case.table.numpy().astype(np.int32)
    by = max(0, min(by, table.shape[1] * case.pages.shape[3] - max(case.contexts)))
    planner = Planner(case.pages.shape[3], ahead_tokens=64, **options)
    first = planner.plan(*lengths, table)
    capacity = Capacity(rows=6, pages=table.shape[1] + 3, queries=6, narrow=90, wide=30, entries=200)
    device = torch.device("cpu")
    static = Work.of(first, table, device, tile_queries=4, one_tile=False, capacity=capacity)
    for step in (0, by):
        contexts = lengths[1] + step
        static.fill(planner.plan(lengths[0], contexts, table), table)
        planned = plan(lengths[0], contexts, table, case.pages.shape[3], **options)
        fresh = Work.of(planned, table, device, tile_queries=4, one_tile=False)
        with poisoned():
            found, expected = (case.attend(Layout(case.window, work)) for work in (static, fresh))
        assert torch.equal(found, expected)
    assert planner.num_planned == 1


@few
@given(write_cases())
def test_write_kv_equals_its_reference_and_touches_nothing_else(case: WriteCase) -> None:
    (pages, scales), (expected, expected_scales) = case.run(write_kv.op_triton), case.run(write_kv.op_reference)
    close_pages(pages, expected)
    if case.scales is None:
        assert torch.equal(pages, expected)
    else:
        close(scales, expected_scales)


@few
@given(norm_cases())
def test_rms_norm_equals_its_reference(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    x = case[0]
    residuals = [x.flip(0).clone(), x.flip(0).clone()]
    with poisoned():
        close(rms_norm.op_triton(*case, 1e-5), rms_norm.op_reference(*case, 1e-5))
        found = rms_norm.op_triton(*case, 1e-5, residuals[0])
    close(found, rms_norm.op_reference(*case, 1e-5, residuals[1]))
    assert torch.equal(*residuals)


@few
@given(qkv_cases())
def test_write_qkv_equals_its_reference_and_touches_nothing_else(case: QkvCase) -> None:
    found, expected = case.run(write_qkv.op_triton), case.run(write_qkv.op_reference)
    close(found[0], expected[0])
    close_pages(found[1], expected[1])
    if expected[2] is not None:
        close(found[2], expected[2])


def test_float8_bits_are_those_that_torch_makes() -> None:
    head = torch.cat([torch.logspace(-12, 8.8, 4095, base=2.0), torch.tensor([448.0])])
    kv = torch.stack([head, -head])[None, :, None]
    pages = torch.zeros(1, 2, 1, 16, 4096).to(torch.float8_e4m3fn)
    scales = torch.zeros(1, 2, 1, 16)
    write_kv.op_triton(kv, pages, torch.zeros(1, dtype=torch.int64), scales)
    assert torch.equal(scales[0, :, 0, 0], torch.ones(2))
    expected = torch.stack([head, -head]).to(torch.float8_e4m3fn).view(torch.uint8)
    assert torch.equal(pages.view(torch.uint8)[0, :, 0, 0], expected)


@few
@given(norm_cases(), st.integers(0, 30))
def test_rope_equals_its_reference(case: tuple[torch.Tensor, torch.Tensor], position: int) -> None:
    x = case[0][:, : case[0].shape[1] // 2 * 2]
    if not x.shape[1]:
        return
    tables = rope.table(32, x.shape[1], 500.0, rope.Scaling(8.0, 1.0, 4.0, 16))
    positions = torch.full((len(x),), position)
    found, expected = x[:, None].clone(), x[:, None].clone()
    rope.op_triton(found, *tables, positions)
    rope.op_reference(expected, *tables, positions)
    close(found, expected)


@few
@given(norm_cases())
def test_swiglu_equals_its_reference(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    x = torch.cat([case[0], case[0].flip(1)], dim=1)
    with poisoned():
        close(swiglu.op_triton(x), swiglu.op_reference(x))


@few
@given(sample_cases())
def test_sample_equals_its_reference(case: tuple[torch.Tensor, sample.Choice]) -> None:
    with poisoned():
        tokens, logprobs = sample.op_triton(*case)
    expected, expected_logprobs = sample.op_reference(*case)
    assert torch.equal(tokens, expected)
    close(logprobs, expected_logprobs)


@few
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from([3, 64, 1500]), DTYPES)
def test_step_score_equals_its_reference(marked: int, labels: int, width: int, dtype: torch.dtype) -> None:
    hidden, unembedding = torch.randn(9, width).to(dtype), (torch.randn(40, width) * width**-0.5).to(dtype)
    rows, tokens = torch.randint(0, 9, (marked,)), torch.randperm(40)[:labels]
    with poisoned():
        found = step_score.op_triton(hidden, unembedding, rows, tokens)
    close(found, step_score.op_reference(hidden, unembedding, rows, tokens))


@few
@given(st.permutations(range(6)), st.integers(0, 3), DTYPES)
def test_copy_pages_equals_its_reference_and_touches_nothing_else(
    order: list[int], count: int, dtype: torch.dtype
) -> None:
    pages = torch.randn(2, 6, 2, 1, 16, 24).to(dtype)
    expected = pages.clone()
    sources, targets = torch.tensor(order[:count]).long(), torch.tensor(order[3 : 3 + count]).long()
    copy_pages.op_reference(expected, expected, sources, targets)
    copy_pages.op_triton(pages, pages, sources, targets)
    assert torch.equal(pages, expected)


@few
@given(st.integers(0, 70), st.sampled_from([5, 64, 130]), st.booleans(), DTYPES)
def test_matmul_equals_its_reference_and_a_row_is_the_same_alone(
    rows: int, width: int, bias: bool, dtype: torch.dtype
) -> None:
    x, weight = torch.randn(rows, width).to(dtype), (torch.randn(70, width) * width**-0.5).to(dtype)
    with poisoned():
        found = matmul.op_triton(x, weight, weight[:, 0].contiguous() if bias else None)
        alone = matmul.op_triton(x[-1:], weight, weight[:, 0].contiguous() if bias else None)
    close(found, matmul.op_reference(x, weight, weight[:, 0].contiguous() if bias else None))
    assert torch.equal(found[-1:], alone)


@settings(few, max_examples=4)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(2, 4), DTYPES)
def test_a_layer_has_the_same_bits_alone_and_in_company_and_computed_again(
    others: list[int], decoded: int, dtype: torch.dtype
) -> None:
    """Norm, product, rotation, attention, product: the last tokens of a sequence, however it came to them."""
    layer = Layer(dtype)
    prompts = [torch.randn(length, layer.hidden).to(dtype) for length in (30, *others)]
    steps = torch.randn(decoded, len(prompts), layer.hidden).to(dtype)

    def run(rows: list[int]) -> torch.Tensor:
        """Prefills, then decodes token by token."""
        pool = layer.pool([len(prompts[row]) + decoded for row in rows])
        layer.step(pool, [prompts[row] for row in rows])
        return torch.stack([layer.step(pool, list(steps[t, rows, None]))[0][-1] for t in range(decoded)])

    alone, company = run([0]), run(list(range(len(prompts))))
    whole = torch.cat([prompts[0], steps[:, 0]])
    again = layer.step(layer.pool([len(whole)]), [whole])[0][-decoded:]
    assert torch.equal(alone, company)
    assert torch.equal(alone, again)
