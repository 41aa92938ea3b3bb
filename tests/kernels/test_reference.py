"""The references against computations in float64."""

import math
import subprocess
import sys

import torch
from cases import ExpertCase, QkvCase, close, expert_cases, norm_cases, qkv_cases, sample_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_kernels import copy_pages, expert_product, rms_norm, sample, swiglu, write_qkv


@settings(deadline=None)
@given(norm_cases())
def test_rms_norm_equals_its_formula(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, weight = (tensor.double() for tensor in case)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    close(rms_norm.op(*case, 1e-5), expected.to(case[0].dtype))


@settings(deadline=None)
@given(expert_cases())
def test_each_pair_is_multiplied_by_the_matrix_of_its_expert(case: ExpertCase) -> None:
    found = expert_product.op(case.x, case.weight, case.route())
    per_row = case.x.repeat_interleave(case.chosen.numel() // len(case.x), 0).double()
    expected = torch.einsum("poi,pi->po", case.weight.double()[case.chosen.view(-1)], per_row)
    close(found, expected.to(case.x.dtype))


@settings(deadline=None)
@given(expert_cases())
def test_the_tiles_of_a_routing_hold_every_pair_once_beside_those_of_the_same_expert(case: ExpertCase) -> None:
    routing, experts = case.route(), case.chosen.view(-1).tolist()
    starts, held = routing.starts.tolist(), []
    for expert, start in zip(routing.tile_experts.tolist(), routing.tile_starts.tolist(), strict=True):
        if expert < len(case.weight):
            pairs = routing.order[start : min(start + routing.tile_rows, starts[expert + 1])].tolist()
            assert {experts[pair] for pair in pairs} == {expert}
            held += pairs
    assert sorted(held) == list(range(len(experts)))


@settings(deadline=None)
@given(sample_cases())
def test_noise_is_that_of_the_hash_and_of_nothing_else(case: tuple[torch.Tensor, sample.SamplingTensors]) -> None:
    """Known values of the hash are computed with whole numbers. Other rows play no part."""
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
    choice = sample.SamplingTensors(
        full, (full * 4).int(), full * 0.9, full * 0, torch.arange(20000), full.long(), full * 0, full * 0
    )
    tokens, logprobs = sample.op(logits, choice)
    share = torch.bincount(tokens, minlength=5) / 20000
    expected = torch.tensor([3.0, 2.0, 1.0]).softmax(
        0
    )  # the probability before the fourth token is 0.968, before the third 0.881
    torch.testing.assert_close(share, torch.cat([expected, torch.zeros(2)]), atol=0.015, rtol=0)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[0, tokens])


def test_swiglu_equals_its_formula() -> None:
    gate_up = torch.randn(9, 32)
    gate, up = gate_up.double().chunk(2, dim=1)
    close(swiglu.op(gate_up), (gate / (1 + (-gate).exp()) * up).float())


@settings(deadline=None)
@given(qkv_cases())
def test_write_qkv_stores_nearly_what_it_was_given(case: QkvCase) -> None:
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
@given(qkv_cases())
def test_write_qkv_equals_a_float64_computation(case: QkvCase) -> None:
    """Float8 numbers are within half a step of 2^-4 of the row's largest, plus the rounding of the scale."""
    rotation, num_kv_heads, page_size = case.rotation, *case.pages.shape[2:4]
    num_heads = case.heads.shape[1] - 2 * num_kv_heads
    heads = case.heads.double()
    turned = heads[:, : num_heads + num_kv_heads].clone()
    if rotation.query_norm is not None and rotation.key_norm is not None:
        turned /= (turned.square().mean(-1, keepdim=True) + rotation.epsilon).sqrt()
        turned[:, :num_heads] *= rotation.query_norm.double()
        turned[:, num_heads:] *= rotation.key_norm.double()
    first, second = turned.chunk(2, -1)
    cos, sin = (table[rotation.positions][:, None].double() for table in (rotation.cosine, rotation.sine))
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
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(p.__path__, 'ponder_kernels.')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
