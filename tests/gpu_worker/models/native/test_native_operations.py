"""The operations in C against torch's operators."""

from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_kernels.attention import paged_attention
from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.sampling.sampling_metadata import LogitEdits, SamplingMetadata
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.models import attention
from ponder_worker.models.kv_pages import Pages
from ponder_worker.models.native import library as module
from ponder_worker.models.native.native_operations import NativeOperations, RowMasks, native_operations
from ponder_worker.models.operations import ForwardContext, TorchOperations

pytestmark = [pytest.mark.usefixtures("compiler"), pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}


def made(dtype: torch.dtype, head_dim: int = 32) -> NativeOperations:
    found = native_operations(dtype, head_dim)
    assert found is not None
    return found


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def tree(chance: torch.Generator, page_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Contexts and page tables of twelve sequences that share pages at three levels, and two that share nothing."""
    table = torch.arange(14 * 20).view(14, 20)[:, torch.randperm(20, generator=chance)]
    for members, num_pages in ((range(9), 4), (range(5), 7), (range(2), 12), (range(9, 12), 6)):
        table[list(members), :num_pages] = table[members[0], :num_pages].clone()
    own = torch.randint(1, 8 * page_size, (14,), generator=chance)
    return torch.tensor([12] * 2 + [7] * 3 + [4] * 4 + [6] * 3 + [0, 9]) * page_size + own, table


@pytest.mark.parametrize("head_dim", [32, 64, 96])
@pytest.mark.parametrize("page_size", [4, 16, 32])
@pytest.mark.parametrize("num_groups", [1, 7, 80])
def test_pages_shared_at_several_levels_give_what_each_alone_would_give(
    dtype: torch.dtype, num_groups: int, page_size: int, head_dim: int
) -> None:
    chance = torch.Generator().manual_seed(page_size)
    contexts, table = tree(chance, page_size)
    pages = torch.randn(14 * 20, 2, 2, page_size, head_dim, generator=chance).to(dtype)
    q = torch.randn(14, 2 * num_groups, head_dim, generator=chance).to(dtype)
    alone = paged_attention.layout(torch.ones(14, dtype=torch.int64), contexts, table, pages=pages)
    c = made(dtype, head_dim)
    where = c.decode_layout(contexts, table, 2 * num_groups, pages)
    near(c.attend_decode(q, pages, where, 0.2), paged_attention.op_reference(q, pages, alone, 0.2))


def test_a_step_that_decodes_and_prefills_attends_as_two_would(dtype: torch.dtype) -> None:
    chance = torch.Generator().manual_seed(0)
    contexts, table = tree(chance, 16)
    lengths = torch.ones(14, dtype=torch.int64)
    lengths[4], lengths[13] = 9, 20
    pages = torch.randn(14 * 20, 2, 2, 16, 32, generator=chance).to(dtype)
    q = torch.randn(int(lengths.sum()), 6, 32, generator=chance).to(dtype)
    alone = paged_attention.layout(lengths, contexts, table, pages=pages)
    c = made(dtype)
    where = attention.layout(lengths, contexts, table, pages=pages, window=None, num_heads=6, native=c)
    assert where.decode is not None
    near(attention.attend(q, Pages(pages), where, 0.2, c), paged_attention.op_reference(q, pages, alone, 0.2))


@pytest.mark.parametrize("head_dim", [32, 64, 96])
@pytest.mark.parametrize("page_size", [4, 16, 32])
@pytest.mark.parametrize("num_groups", [1, 7, 80])
def test_several_tokens_of_a_sequence_see_what_stands_before_each_of_them(
    dtype: torch.dtype, num_groups: int, page_size: int, head_dim: int
) -> None:
    chance = torch.Generator().manual_seed(page_size)
    lengths = torch.tensor([2, 40, 300, 17, 33])
    contexts = torch.tensor([2, 40, 300, 250, 131])
    table = torch.randperm(5 * 80, generator=chance).view(5, 80)
    pages = torch.randn(5 * 80, 2, 2, page_size, head_dim, generator=chance).to(dtype)
    q = torch.randn(int(lengths.sum()), 2 * num_groups + 4, head_dim, generator=chance).to(dtype)[:, : 2 * num_groups]
    alone = paged_attention.layout(lengths, contexts, table, pages=pages)
    c = made(dtype, head_dim)
    where = attention.layout(lengths, contexts, table, pages=pages, window=None, num_heads=2 * num_groups, native=c)
    assert where.prefill is not None
    assert where.decode is None
    near(attention.attend(q, Pages(pages), where, 0.2, c), paged_attention.op_reference(q, pages, alone, 0.2))


@pytest.mark.parametrize("head_dim", [32, 64, 96])
def test_a_token_of_a_prompt_has_the_bits_it_has_in_another_chunk(dtype: torch.dtype, head_dim: int) -> None:
    chance = torch.Generator().manual_seed(0)
    table = torch.randperm(40, generator=chance).view(1, 40)
    pages = torch.randn(40, 2, 2, 16, head_dim, generator=chance).to(dtype)
    q = torch.randn(600, 6, head_dim, generator=chance).to(dtype)
    c = made(dtype, head_dim)

    def attended(first: int, end: int) -> torch.Tensor:
        where = attention.layout(
            torch.tensor([end - first]), torch.tensor([end]), table, pages=pages, window=None, num_heads=6, native=c
        )
        return attention.attend(q[first:end], Pages(pages), where, 0.2, c)

    whole = attended(0, 600)
    for first, end in ((0, 130), (130, 300), (300, 600), (411, 440)):
        assert torch.equal(attended(first, end), whole[first:end])


@pytest.mark.parametrize("delta", [True, False])
def test_a_residual_is_added_and_normalised(dtype: torch.dtype, delta: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    hidden, other, weight = (torch.randn(*shape, generator=chance).to(dtype) for shape in ((5, 48), (5, 48), (48,)))
    expected_hidden = hidden.clone()
    given = other if delta else None
    expected = TorchOperations().add_and_normalise(expected_hidden, given, weight, 1e-5)
    near(made(dtype).add_and_normalise(hidden, given, weight, 1e-5), expected)
    assert torch.equal(hidden, expected_hidden)


@pytest.mark.parametrize("norms", [True, False])
def test_queries_and_keys_are_rotated_and_written(dtype: torch.dtype, norms: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    qkv = torch.randn(6, (4 + 2 * 2) * 64, generator=chance).to(dtype)
    angle = torch.outer(torch.arange(40.0), 1.0 / 100 ** (torch.arange(32) / 32))
    slots = torch.tensor([0, 17, -1, 35, 16, 5])
    context = ForwardContext(torch.tensor([0, 3, 39, 5, 6, 7]), slots, angle.cos(), angle.sin(), 1e-6)
    weights = tuple(torch.randn(64, generator=chance).to(dtype) if norms else None for _ in range(2))
    pages, expected_pages = torch.zeros(2, 3, 2, 2, 16, 64, dtype=dtype).unbind()
    expected = TorchOperations().rotate_and_write(qkv.clone(), Pages(expected_pages), context, (weights[0], weights[1]))
    near(made(dtype, 64).rotate_and_write(qkv, Pages(pages), context, (weights[0], weights[1])), expected)
    near(pages, expected_pages)


def test_a_gate_is_silu_times_the_other_half(dtype: torch.dtype) -> None:
    gate_up = (torch.randn(7, 64, generator=torch.Generator().manual_seed(0)) * 4).to(dtype)
    gate_up[0, :4] = torch.tensor([-100.0, -3e4, 90.0, 3e4])
    near(made(dtype).gate(gate_up), TorchOperations().gate(gate_up))


@pytest.mark.skipif("avx2" not in module._processor().decode().split(), reason="no AVX2")
@pytest.mark.parametrize("march", ["x86-64", "x86-64-v3"])
def test_vectors_of_older_processors_give_the_same(
    dtype: torch.dtype, march: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [march.join(flag.split("native")) for flag in module._flags()]
    monkeypatch.setattr(module, "_flags", lambda: own)
    chance = torch.Generator().manual_seed(0)
    contexts, table = tree(chance, 16)
    pages = torch.randn(14 * 20, 2, 2, 16, 64, generator=chance).to(dtype)
    q = torch.randn(14, 14, 64, generator=chance).to(dtype)
    alone = paged_attention.layout(torch.ones(14, dtype=torch.int64), contexts, table, pages=pages)
    functions = module._kept(bfloat16=dtype == torch.bfloat16)
    for name, arguments in module._ARGUMENTS.items():
        getattr(functions, name).argtypes = arguments
    c = NativeOperations(functions, dtype)
    expected = paged_attention.op_reference(q, pages, alone, 0.2)
    near(c.attend_decode(q, pages, c.decode_layout(contexts, table, 14, pages), 0.2), expected)
    starts = torch.arange(14)
    out = torch.empty_like(q)
    where = c.prefill_layout(starts, torch.ones_like(starts), contexts, table, num_heads=14, pages=pages)
    c.attend_prefill(q, pages, where, 0.2, out)
    near(out, expected)


def test_tokens_and_their_logprobs_are_those_of_torch(dtype: torch.dtype) -> None:
    logits = (torch.randn(500, 203, generator=torch.Generator().manual_seed(0)) * 3).to(dtype).float()
    samplings = [
        SamplingParams(1, seed=seed, temperature=(0.0, 0.7, 1.0)[seed % 3], top_k=seed % 5) for seed in range(500)
    ]
    metadata, positions = SamplingMetadata(samplings), np.arange(500)
    sampler, plain = Sampler(203, torch.device("cpu")), Sampler(203, torch.device("cpu"))
    plain._choice = None
    found, expected = (one.sample(logits, metadata, positions, {}) for one in (sampler, plain))
    assert int((found != expected).sum()) <= 1  # logarithms differ in the last place
    torch.testing.assert_close(
        sampler.logprobs(logits, expected), plain.logprobs(logits, expected), atol=1e-5, rtol=1e-5
    )


FILTERS: list[dict[str, float]] = [{}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 20, "top_p": 0.9}]
SIZES = [1, 5, 31, 32, 33, 203, 1024, 4099]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_masked_rows_are_sampled_as_if_what_is_left_out_were_impossible(
    dtype: torch.dtype, data: st.DataObject
) -> None:
    """In C the sampler reads the masks' bits. Torch spreads them, and gives everything else no chance."""
    num_rows, vocabulary = data.draw(st.integers(1, 40)), data.draw(st.sampled_from(SIZES))
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    filters, biases = data.draw(st.sampled_from(FILTERS)), data.draw(st.sampled_from([(), ((0, 3.0),)]))
    temperatures = data.draw(st.sampled_from([(0.0,), (1.0,), (0.0, 0.7, 1.3)]))
    samplings = [
        SamplingParams(1, seed=row, temperature=temperatures[row % len(temperatures)], logit_bias=biases, **fields)  # type: ignore[arg-type]
        for row, fields in zip(range(num_rows), cycle([{}, filters]), strict=False)
    ]
    rows = sorted(data.draw(st.sets(st.integers(0, num_rows - 1), min_size=1)))
    allowed = chance.random((len(rows), vocabulary)) < data.draw(st.sampled_from([0.01, 0.5, 0.99]))
    allowed[np.arange(len(rows)), chance.integers(vocabulary, size=len(rows))] = True
    padding = (vocabulary // 32 + 1) * 32 - vocabulary
    bits = np.packbits(np.pad(allowed, ((0, 0), (0, padding)), constant_values=True), axis=1, bitorder="little")
    masks = RowMasks(rows, torch.from_numpy(bits))

    logits = torch.from_numpy(chance.normal(scale=3, size=(num_rows, vocabulary))).to(dtype).float()
    metadata, positions = SamplingMetadata(samplings), np.arange(num_rows)
    edits = {row: LogitEdits() for row in metadata.edited}
    before, impossible = logits.clone(), logits.clone()
    impossible[rows] = impossible[rows].masked_fill(~torch.from_numpy(allowed), -torch.inf)
    sampler, plain = Sampler(vocabulary, torch.device("cpu")), Sampler(vocabulary, torch.device("cpu"))
    plain._choice = None
    found = sampler.sample(logits, metadata, positions, edits, masks)
    assert torch.equal(found, sampler.sample(impossible, metadata, positions, edits))
    assert int((found != plain.sample(logits, metadata, positions, edits, masks)).sum()) <= 1  # logarithms differ
    assert torch.equal(logits, before)
    part_of_wider_rows = torch.cat([logits, torch.zeros(num_rows, 3)], 1)[:, :vocabulary]
    assert torch.equal(sampler.masked(part_of_wider_rows, masks), impossible)
    assert torch.equal(plain.masked(logits.clone(), masks), impossible)
