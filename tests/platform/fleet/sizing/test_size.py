"""What fits on a GPU, against arithmetic by hand and against rules that hold for every model."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.fleet.sizing.gpu import GPUS, Gpu
from ponder.fleet.sizing.model_shape import LayerCache, ModelShape, Weights
from ponder.fleet.sizing.size import BITS, USABLE, Fit, Model, fit, fits, recommend

GB = 10**9
LLAMA_70B = ModelShape.plain(layers=80, heads=64, kv_heads=8, head_dim=128, parameters=70 * GB)


def of_70b(weights: str = "fp8", kv: str = "bf16", context: int = 10_000) -> Model:
    return Model(LLAMA_70B, BITS[weights], BITS[kv], context)


def test_a_sequence_of_10000_tokens_of_a_70b_model_takes_3_28_gb() -> None:
    model = of_70b()
    assert model.kv_bytes_per_token == 2 * 80 * 8 * 128 * 2 == 327_680
    assert round(model.kv_bytes_per_sequence / GB, 2) == 3.28


@pytest.mark.parametrize(
    ("gpu", "weights", "num_gpus", "on_paper", "in_service"),
    [
        ("h100", "fp8", 1, 3, 0),  # 10 GB beside the weights; 2 GB of them once a tenth of the memory is kept free
        ("h100", "bf16", 2, 6, 1),
        ("h200", "fp8", 1, 21, 17),
        ("h200", "bf16", 1, 0, 0),  # 1 GB beside the weights is no sequence
        ("b200", "fp8", 1, 33, 28),
        ("b200", "bf16", 1, 12, 6),
    ],
)
def test_the_table_of_a_70b_model_at_10000_tokens(
    gpu: str, weights: str, num_gpus: int, on_paper: int, in_service: int
) -> None:
    """On paper the whole memory is for weights, keys and values, as published tables count."""
    model = of_70b(weights)
    assert fit(model, GPUS[gpu], num_gpus, usable=Fraction(1)).num_sequences == on_paper
    assert fit(model, GPUS[gpu], num_gpus).num_sequences == in_service


def test_a_b200_with_its_whole_memory_enabled_would_hold_four_sequences_more() -> None:
    whole = replace(GPUS["b200"], memory_bytes=192 * GB)
    assert fit(of_70b(), whole, 1, usable=Fraction(1)).num_sequences == 37


def test_halving_the_precision_of_keys_and_values_doubles_what_fits() -> None:
    room = fit(of_70b(), GPUS["h200"], 1).num_sequences
    assert fit(of_70b(kv="fp8"), GPUS["h200"], 1).num_sequences in (2 * room, 2 * room + 1)
    assert of_70b(kv="int4").kv_bytes_per_token == 327_680 // 4


def test_the_recommendation_is_the_fewest_gpus_with_room_for_a_useful_batch() -> None:
    found = recommend(of_70b("bf16"), GPUS["h100"])
    assert found is not None
    assert (found.num_gpus, found.is_useful) == (4, True)
    assert not fit(of_70b("bf16"), GPUS["h100"], 2).is_useful
    assert recommend(of_70b("bf16"), GPUS["t4"]) is None, "eight of them hold 115 GB"


def test_gpus_divide_the_heads() -> None:
    fourteen = ModelShape.plain(layers=24, kv_heads=2, head_dim=64, parameters=GB // 2, heads=14)
    assert [found.num_gpus for found in fits(Model(fourteen, 16, 16, 1000), GPUS["l4"])] == [1, 2]
    assert [found.num_gpus for found in fits(of_70b(), GPUS["l4"])] == [1, 2, 4, 8]


def test_gpus_beyond_the_heads_of_keys_keep_the_same_ones_again() -> None:
    one_head = ModelShape.plain(layers=32, kv_heads=1, head_dim=128, parameters=GB, heads=32)
    model = Model(one_head, 16, 16, 10_000)
    alone, beside = fit(model, GPUS["l4"], 1), fit(model, GPUS["l4"], 8)
    freed = int(model.weight_bytes * 7 / 8)
    assert beside.num_sequences - alone.num_sequences == pytest.approx(freed / model.kv_bytes_per_sequence, abs=1)


def test_decoding_is_bound_by_bandwidth_and_prefill_by_operations() -> None:
    h100, model = GPUS["h100"], of_70b("fp8")
    found = fit(model, h100, 2)
    read = model.weight_bytes / 2 + found.batch * model.kv_bytes_per_sequence / 2
    assert found.decode_tokens_per_s == pytest.approx(found.batch * h100.bytes_per_s / read)
    attention = 4 * 80 * 64 * 128 * 5000.5
    assert found.prefill_tokens_per_s == pytest.approx(2 * 1979e12 / (2 * 70e9 + attention))


def test_a_mixture_reads_more_of_its_experts_the_larger_the_batch() -> None:
    weights = Weights(shared=GB, routed=32 * GB, chosen_share=1 / 16)
    assert weights.used(1) == pytest.approx(3 * GB)
    assert weights.used(1) < weights.used(8) < weights.used(64) < weights.total


def test_the_price_of_a_million_tokens_is_that_of_all_gpus() -> None:
    found = Fit(GPUS["h100"], 2, 8, 8, decode_tokens_per_s=1000.0, prefill_tokens_per_s=1.0)
    assert found.nanodollars_per_million(3 * GB, found.decode_tokens_per_s) == pytest.approx(6 * GB / 3.6)


gpus = st.sampled_from(sorted(GPUS)).map(GPUS.__getitem__)
shapes = st.builds(
    lambda kv_heads, group, head_dim, parameters, caches: ModelShape(
        Weights(parameters),
        kv_heads * group,
        kv_heads,
        2 * head_dim,
        tuple(LayerCache(num, 2 * kv_heads * head_dim, window) for num, window in caches),
    ),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 8),
    st.sampled_from([64, 96, 128]),
    st.integers(10**8, 10**11),
    st.lists(st.tuples(st.integers(1, 80), st.none() | st.integers(128, 8192)), min_size=1, max_size=2),
)
models = st.builds(Model, shapes, *[st.sampled_from(sorted(BITS.values()))] * 2, st.integers(1, 200_000))


@given(models, gpus, st.integers(1, 200_000))
def test_a_longer_context_never_lets_more_sequences_fit(model: Model, gpu: Gpu, longer: int) -> None:
    for before, after in zip(fits(model, gpu), fits(replace(model, context=model.context + longer), gpu), strict=True):
        assert after.num_sequences <= before.num_sequences


@given(models, gpus, st.integers(0, 10**11))
def test_more_memory_never_lets_fewer_sequences_fit(model: Model, gpu: Gpu, more: int) -> None:
    larger = replace(gpu, memory_bytes=gpu.memory_bytes + more)
    assert fit(model, larger, 1).num_sequences >= fit(model, gpu, 1).num_sequences


@given(models, gpus, st.sampled_from([1, 2, 4, 8]))
def test_what_fits_fits_and_one_sequence_more_does_not(model: Model, gpu: Gpu, num_gpus: int) -> None:
    kv_heads = model.shape.num_kv_heads
    found = fit(model, gpu, num_gpus).num_sequences
    sequence = Fraction(model.kv_bytes_per_sequence) * -(-kv_heads // num_gpus) / kv_heads
    room = gpu.memory_bytes * USABLE - Fraction(model.weight_bytes, num_gpus)
    rounding = 2 + found  # bytes are whole
    assert found == 0 or found * sequence <= room + rounding
    assert (found + 1) * (sequence + 1) > room - rounding


@given(models, gpus)
def test_more_gpus_never_hold_or_compute_less(model: Model, gpu: Gpu) -> None:
    found = list(fits(model, gpu))
    for fewer, more in pairwise(found):
        assert more.num_sequences >= fewer.num_sequences
        assert more.prefill_tokens_per_s >= fewer.prefill_tokens_per_s * 0.999
        assert more.decode_tokens_per_s >= fewer.decode_tokens_per_s * 0.999
