"""The references against a float64 dense computation."""

import math
import subprocess
import sys

import pytest
import torch
from cases import DTYPES, Case, QkvCase, attention_cases, close, norm_cases, qkv_cases, sample_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_kernels import copy_pages, matmul, rms_norm, rope, sample, step_score, swiglu, write_qkv
from ponder_kernels.attention import attention_groups


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


@settings(deadline=None)
@given(norm_cases())
def test_rms_norm_equals_its_formula(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, weight = (tensor.double() for tensor in case)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    close(rms_norm.op(*case, 1e-5), expected.to(case[0].dtype))


def test_sequences_of_a_group_differ_little_in_length_and_fit_the_limit() -> None:
    queries, pages = [1] * 60 + [40, 33, 7], [1 + index % 20 for index in range(60)] + [8, 8, 8]
    groups = attention_groups._cut(queries, pages, most=64)
    assert sorted(index for group in groups for index in group) == list(range(63))
    for group in groups:
        counts = [pages[index] for index in group]
        assert min(counts) >= 0.6 * max(counts) - 2
        assert len(group) == 1 or max(counts) * len(group) <= 64
    assert [61, 60] not in groups
    assert sorted(groups[0]) == [60, 61]


@settings(deadline=None)
@given(sample_cases())
def test_noise_is_that_of_the_hash_and_of_nothing_else(case: tuple[torch.Tensor, sample.Choice]) -> None:
    """Known values of the hash, computed with whole numbers; the row's company plays no part."""
    seeds, positions = case[1].seeds, case[1].positions
    found = sample.noise(seeds, positions, 50)
    for row, (seed, position) in enumerate(zip(seeds.tolist(), positions.tolist(), strict=True)):
        assert torch.equal(found[row], sample.noise(seeds[row : row + 1], positions[row : row + 1], 50)[0])
        key = mix(seed % 2**64 ^ mix(position))
        for token in (0, 1, 49):
            bits = scramble((token * 0x9E3779B9 + key) % 2**32)
            uniform = ((scramble(bits ^ key >> 32) & 0x7FFFFFFF) + 0.5) * 2.0**-31
            expected = -math.log(-math.log1p(-min(uniform, 1 - 2.0**-24)))
            assert abs(found[row, token].item() - expected) < 1e-4 * (1 + abs(expected))


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def scramble(x: int) -> int:
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x ^ x >> 16


def test_a_filter_leaves_only_what_it_should_and_in_the_right_parts() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]]).expand(20000, 5).contiguous()
    full = torch.ones(20000)
    choice = sample.Choice(
        full, (full * 4).int(), full * 0.9, full * 0, torch.arange(20000), full.long(), full * 0, full * 0
    )
    tokens, logprobs = sample.op(logits, choice)
    share = torch.bincount(tokens, minlength=5) / 20000
    expected = torch.tensor([3.0, 2.0, 1.0]).softmax(0)  # before the fourth 0.968 stands, before the third 0.881
    torch.testing.assert_close(share, torch.cat([expected, torch.zeros(2)]), atol=0.015, rtol=0)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[0, tokens])


def test_rope_is_that_of_transformers_with_the_scaling_of_llama_3() -> None:
    library = pytest.importorskip("transformers.modeling_rope_utils")
    config = pytest.importorskip("transformers").LlamaConfig(
        hidden_size=64, num_attention_heads=1, max_position_embeddings=256,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    )  # fmt: skip
    frequency, _ = library.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    cosine, sine = rope.table(200, 64, 10000.0, rope.Scaling(8.0, 1.0, 4.0, 64))
    angle = torch.outer(torch.arange(200.0), frequency)
    torch.testing.assert_close(cosine, angle.cos(), atol=2e-5, rtol=0)
    torch.testing.assert_close(sine, angle.sin(), atol=2e-5, rtol=0)


def test_step_score_and_swiglu_equal_their_formulas() -> None:
    hidden, unembedding = torch.randn(9, 33), torch.randn(40, 33)
    rows, labels = torch.tensor([8, 0, 3]), torch.tensor([7, 2])
    expected = (hidden.double() @ unembedding.double().T)[rows][:, labels].softmax(-1)
    close(step_score.op(hidden, unembedding, rows, labels), expected.float())
    gate, up = hidden[:, :16].double(), hidden[:, 16:32].double()
    close(swiglu.op(hidden[:, :32].contiguous()), (gate / (1 + (-gate).exp()) * up).float())


@settings(deadline=None)
@given(qkv_cases())
def test_what_write_qkv_writes_is_near_what_it_was_given(case: QkvCase) -> None:
    num_kv_heads, page_size = case.pages.shape[2:4]
    _, pages, scales = case.run(write_qkv.op)
    for token, slot in enumerate(case.slots.tolist()):
        if slot >= 0:
            place = (slot // page_size, 1, slice(None), slot % page_size)
            value = case.heads[token, -num_kv_heads:].float()
            if scales is not None:
                stored = pages.float()[place] * scales[place][:, None]
                assert ((stored - value).abs() <= value.abs().amax(-1, keepdim=True) / 16).all()
            else:
                assert torch.equal(pages[place].float(), value)


@settings(deadline=None)
@given(norm_cases(), st.booleans())
def test_rope_equals_a_rotation_by_complex_numbers(case: tuple[torch.Tensor, torch.Tensor], stretched: bool) -> None:
    x = case[0][:, None, : case[0].shape[1] // 2 * 2]
    if not x.numel():
        return
    half, positions = x.shape[2] // 2, torch.arange(len(x)) * 7
    scaling = rope.Scaling(8.0, 1.0, 4.0, 16) if stretched else None
    tables = rope.table(40, 2 * half, 500.0, scaling)
    frequency = 500.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    if stretched:
        keep = ((16 * frequency / (2 * math.pi) - 1.0) / 3.0).clamp(0, 1)
        frequency = frequency * (keep + (1 - keep) / 8.0)
    turned = torch.complex(*x.double().chunk(2, -1)) * torch.polar(
        torch.ones(len(x), 1, half, dtype=torch.float64), positions[:, None, None] * frequency
    )
    found = x.clone()
    rope.op(found, *tables, positions)
    close(found, torch.cat([turned.real, turned.imag], -1).to(x.dtype))


@settings(deadline=None)
@given(qkv_cases())
def test_write_qkv_equals_a_float64_computation(case: QkvCase) -> None:
    """Float8 numbers within half a step of 2^-4 of a row's greatest, beside what the rounding of the scale adds."""
    turn, num_kv_heads, page_size = case.turn, *case.pages.shape[2:4]
    num_heads = case.heads.shape[1] - 2 * num_kv_heads
    heads = case.heads.double()
    turned = heads[:, : num_heads + num_kv_heads].clone()
    if turn.query_norm is not None and turn.key_norm is not None:
        turned /= (turned.square().mean(-1, keepdim=True) + turn.epsilon).sqrt()
        turned[:, :num_heads] *= turn.query_norm.double()
        turned[:, num_heads:] *= turn.key_norm.double()
    first, second = turned.chunk(2, -1)
    cos, sin = (table[turn.positions][:, None].double() for table in (turn.cosine, turn.sine))
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
    queries, pages, scales = case.run(write_qkv.op)
    close(queries[:, :num_heads], turned[:, :num_heads].to(queries.dtype))
    assert torch.equal(queries[:, num_heads:], case.heads[:, num_heads:])
    written = pages.double() if scales is None else pages.double() * scales.double()[..., None]
    for token, slot in enumerate(case.slots.tolist()):
        if slot >= 0:
            expected = torch.stack([turned[token, num_heads:], heads[token, -num_kv_heads:]])
            found = written[slot // page_size, :, :, slot % page_size]
            if scales is None:
                close(found.to(pages.dtype), expected.to(pages.dtype))
            else:
                assert ((found - expected).abs() <= expected.abs().amax(-1, keepdim=True) * (2**-4 + 1e-3)).all()


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 300), st.booleans(), DTYPES)
def test_matmul_equals_a_float64_product(rows: int, width: int, bias: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(width)
    x, weight = torch.randn(rows, width, generator=generator), torch.randn(9, width, generator=generator)
    x, weight = x.to(dtype), (weight * width**-0.5).to(dtype)
    added = weight[:, 0].contiguous() if bias else None
    expected = x.double() @ weight.double().T + (0 if added is None else added.double())
    close(matmul.op(x, weight, added), expected.to(dtype))


@settings(deadline=None)
@given(st.permutations(range(6)), st.integers(0, 3))
def test_copy_pages_moves_what_it_should_and_nothing_else(order: list[int], count: int) -> None:
    source, target = torch.randn(2, 6, 2, 1, 16, 8), torch.full((2, 6, 2, 1, 16, 8), torch.nan)
    sources, targets = order[:count], order[3 : 3 + count]
    copy_pages.op(source, target, torch.tensor(sources).long(), torch.tensor(targets).long())
    for page in range(6):
        if page in targets:
            assert torch.equal(target[:, page], source[:, sources[targets.index(page)]])
        else:
            assert target[:, page].isnan().all()


def test_every_kernel_imports_without_triton() -> None:
    code = (
        "import sys, pkgutil, importlib; sys.modules['triton'] = None; import ponder_kernels as p;"
        "[importlib.import_module('ponder_kernels.' + m.name) for m in pkgutil.iter_modules(p.__path__)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
