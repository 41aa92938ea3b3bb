"""Every Triton kernel against its reference, in Triton's interpreter. test_interpreter.py runs this in a new process.

bfloat16 is left out, because the interpreter's dot product of it is silently wrong.
"""

from dataclasses import replace

import numpy as np
import torch
from cases import (
    DTYPES,
    Case,
    ExpertCase,
    QkvCase,
    WriteCase,
    attention_cases,
    close,
    close_pages,
    expert_cases,
    norm_cases,
    poisoned,
    qkv_cases,
    sample_cases,
    write_cases,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer import Layer

from ponder_kernels import copy_pages, expert_product, rms_norm, sample, swiglu, write_kv, write_qkv
from ponder_kernels.attention.attention_plan import plan
from ponder_kernels.attention.device_plan import Capacity, DevicePlan
from ponder_kernels.attention.layout import Layout
from ponder_kernels.attention.planner import Planner


def _fixed_order_matmul(a: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.einsum("...ik,...kj->...ij", a, b, dtype=dtype)


# The interpreter's dot product. Some BLAS kernels compute a row's bits by its place in the tile; a GPU does not.
np.matmul = _fixed_order_matmul  # type: ignore[assignment]

few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(attention_cases())
def test_paged_attention_equals_its_reference(case: Case) -> None:
    if case.scales is None:
        case.pages[case.unused] = torch.nan  # pages that no table names must not be read
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
        together = case.kernel(share=True, leaf_tokens=32, leaves_per_block=4)
        apart = case.kernel(share=False, leaf_tokens=32, leaves_per_block=4)
    assert torch.equal(together, apart)
    close(together, case.reference())


@settings(few, max_examples=8)
@given(attention_cases(longest=200, head_dims=(16,)), st.integers(0, 3))
def test_a_query_has_the_same_bits_in_company_and_alone_and_computed_again(case: Case, row: int) -> None:
    row %= len(case.queries)
    options = {"leaf_tokens": 32, "leaves_per_block": 2}
    together = case.kernel(**options).split(case.queries)[row]
    q, table = case.q.split(case.queries)[row], case.table[row : row + 1]
    alone = replace(case, q=q, queries=[len(q)], contexts=[case.contexts[row]], table=table)
    assert torch.equal(alone.kernel(**options), together)
    last = replace(alone, q=q[-1:], queries=[1])  # as in a decode step
    assert torch.equal(last.kernel(**options), together[-1:])


@settings(few, max_examples=6)
@given(attention_cases(longest=200, head_dims=(16,), family=True), st.integers(1, 40))
def test_a_plan_made_ahead_in_a_static_buffer_has_the_same_bits_when_sequences_have_grown(case: Case, by: int) -> None:
    """A captured graph runs like this: one buffer gets new positions while pages are added."""
    options = {"tile_queries": 4, "window": case.window, "leaf_tokens": 32, "leaves_per_block": 4}
    lengths, table = [part.numpy() for part in case.lengths[:2]], case.table.numpy().astype(np.int32)
    by = max(0, min(by, table.shape[1] * case.pages.shape[3] - max(case.contexts)))
    planner = Planner(case.pages.shape[3], ahead_tokens=64, **options)
    first = planner.plan(*lengths, table)
    capacity = Capacity(rows=6, pages=table.shape[1] + 3, queries=6, narrow=90, wide=30, entries=200)
    device = torch.device("cpu")
    static = DevicePlan.of(first, table, device, tile_queries=4, capacity=capacity)
    for step in (0, by):
        contexts = lengths[1] + step
        static.fill(planner.plan(lengths[0], contexts, table), table)
        planned = plan(lengths[0], contexts, table, case.pages.shape[3], **options)
        fresh = DevicePlan.of(planned, table, device, tile_queries=4)
        with poisoned():
            found, expected = (case.attend(Layout(case.window, each)) for each in (static, fresh))
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
@given(norm_cases(), st.booleans())
def test_rms_norm_equals_its_reference(case: tuple[torch.Tensor, torch.Tensor], wide: bool) -> None:
    x, weight = case
    case = x, weight.float() if wide else weight
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
@given(norm_cases(), st.booleans())
def test_swiglu_equals_its_reference(case: tuple[torch.Tensor, torch.Tensor], gelu: bool) -> None:
    x = torch.cat([case[0], case[0].flip(1)], dim=1)
    with poisoned():
        close(swiglu.op_triton(x, gelu=gelu), swiglu.op_reference(x, gelu=gelu))


@few
@given(expert_cases())
def test_expert_product_equals_its_reference(case: ExpertCase) -> None:
    routing = case.route()
    with poisoned():
        found = expert_product.op_triton(case.x, case.weight, routing)
    close(found, expert_product.op_reference(case.x, case.weight, routing))


@few
@given(expert_cases(), st.integers(0, 40))
def test_a_row_has_the_same_bits_beside_other_rows_of_its_experts_and_alone(case: ExpertCase, row: int) -> None:
    row %= len(case.chosen)
    num_chosen = case.chosen.shape[1]
    size = num_chosen if len(case.x) > len(case.chosen) else 1
    alone = replace(case, x=case.x[row * size : (row + 1) * size], chosen=case.chosen[row : row + 1])
    together = expert_product.op_triton(case.x, case.weight, case.route())
    found = expert_product.op_triton(alone.x, case.weight, alone.route())
    assert torch.equal(found, together[row * num_chosen : (row + 1) * num_chosen])


@few
@given(sample_cases())
def test_sample_equals_its_reference(case: tuple[torch.Tensor, sample.SamplingTensors]) -> None:
    with poisoned():
        tokens, logprobs = sample.op_triton(*case)
    expected, expected_logprobs = sample.op_reference(*case)
    assert torch.equal(tokens, expected)
    close(logprobs, expected_logprobs)


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


@settings(few, max_examples=4)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(2, 4), DTYPES)
def test_a_layer_has_the_same_bits_alone_and_in_company_and_computed_again(
    others: list[int], decoded: int, dtype: torch.dtype
) -> None:
    """The layer is norm, product, rotation, attention and product; the last tokens of a sequence are compared."""
    layer = Layer(dtype)
    prompts = [torch.randn(length, layer.hidden).to(dtype) for length in (30, *others)]
    steps = torch.randn(decoded, len(prompts), layer.hidden).to(dtype)

    def run(rows: list[int]) -> torch.Tensor:
        """Prefill, then decode token by token."""
        pool = layer.pool([len(prompts[row]) + decoded for row in rows])
        layer.step(pool, [prompts[row] for row in rows])
        return torch.stack([layer.step(pool, list(steps[t, rows, None]))[0][-1] for t in range(decoded)])

    alone, company = run([0]), run(list(range(len(prompts))))
    whole = torch.cat([prompts[0], steps[:, 0]])
    again = layer.step(layer.pool([len(whole)]), [whole])[0][-decoded:]
    assert torch.equal(alone, company)
    assert torch.equal(alone, again)
