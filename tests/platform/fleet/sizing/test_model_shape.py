"""Reads shapes out of the published config.json of models whose sizes are known."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.errors import InvalidInput
from ponder.fleet.sizing.model_shape import LayerCache, ModelShape

Fields = dict[str, Any]

LLAMA_70B: Fields = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
DEEPSEEK_V3: Fields = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
QWEN3_30B: Fields = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "sliding_window": None,
}
GEMMA3_12B: Fields = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "vocab_size": 262208,
        "tie_word_embeddings": True,
        "sliding_window": 1024,
        "model_type": "gemma3_text",
    },
}
GPT_OSS_20B: Fields = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}

OTHER_FIELDS = (
    "max_window_layers",
    "model_type",
    "num_kv_shared_layers",
    "shared_expert_intermediate_size",
    "sliding_window_pattern",
    "text_config",
    "use_sliding_window",
)


def parse(fields: Fields, **changes: Any) -> ModelShape:
    return ModelShape.parse({**fields, **changes}, "config.json")


@pytest.mark.parametrize(
    ("fields", "billions", "active"),
    [
        (LLAMA_70B, 70.6, 70.6),
        (DEEPSEEK_V3, 671, 37.5),
        (QWEN3_30B, 30.5, 3.3),
        (GEMMA3_12B, 11.8, 11.8),
        (GPT_OSS_20B, 20.9, 4.2),  # 3.6 without the input embeddings
    ],
)
def test_the_parameters_add_up_to_the_published_number(fields: Fields, billions: float, active: float) -> None:
    weights = parse(fields).weights
    assert weights.total / 1e9 == pytest.approx(billions, rel=0.01)
    assert weights.used(1) / 1e9 == pytest.approx(active, rel=0.02)


def test_the_parameters_of_the_shipped_model_are_those_of_its_file() -> None:
    folder = Path(__file__).parents[4] / "gpu_worker/ponder_worker/demo/weights/large"
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    there = sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    found = ModelShape.parse(json.loads((folder / "config.json").read_text()), "config.json").weights.total
    assert found == pytest.approx(there, rel=0.01)


def test_grouped_queries_share_keys_and_values() -> None:
    assert parse(LLAMA_70B).elements_per_token == 2 * 80 * 8 * 128
    assert parse(LLAMA_70B, num_key_value_heads=None).elements_per_token == 2 * 80 * 64 * 128


def test_latent_attention_keeps_one_latent_that_no_gpu_can_divide() -> None:
    shape = parse(DEEPSEEK_V3)
    assert (shape.elements_per_token, shape.num_kv_heads) == (61 * 576, 1)


def test_layers_with_a_window_keep_no_more_than_that() -> None:
    shape = parse(GEMMA3_12B)
    assert set(shape.caches) == {LayerCache(8, 4096), LayerCache(40, 4096, 1024)}
    assert shape.elements(32_768) == 4096 * (8 * 32_768 + 40 * 1024)
    assert shape.elements(500) == 4096 * 48 * 500


@pytest.mark.parametrize(
    ("changes", "full", "windowed"),
    [
        ({"sliding_window": 4096}, 0, 80),
        ({"sliding_window": 4096, "use_sliding_window": False}, 80, 0),
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 70}, 70, 10),
        ({"attention_chunk_size": 8192, "layer_types": ["chunked_attention"] * 60 + ["full_attention"] * 20}, 20, 60),
        ({"num_kv_shared_layers": 20}, 60, 0),
    ],
)
def test_the_layers_with_a_window_are_those_of_the_config(changes: Fields, full: int, windowed: int) -> None:
    by_window = {cache.window is not None: cache.num_layers for cache in parse(LLAMA_70B, **changes).caches}
    assert (by_window.get(False, 0), by_window.get(True, 0)) == (full, windowed)


def test_layers_with_a_state_keep_nothing_but_need_the_number_of_parameters() -> None:
    hybrid = LLAMA_70B | {"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 20}
    with pytest.raises(InvalidInput, match="give --parameters"):
        parse(hybrid)
    shape = ModelShape.parse(hybrid, "config.json", parameters=80_000_000_000)
    assert (shape.weights.total, shape.elements_per_token) == (80_000_000_000, 2 * 20 * 8 * 128)


def test_a_given_number_of_parameters_prevails_and_experts_stay_experts() -> None:
    weights = ModelShape.parse(QWEN3_30B, "config.json", parameters=31_000_000_000).weights
    assert weights.total == 31_000_000_000
    assert weights.routed == parse(QWEN3_30B).weights.routed


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        (LLAMA_70B, "num_hidden_layers"),
        (LLAMA_70B, "num_attention_heads"),
        (LLAMA_70B, "vocab_size"),
        (LLAMA_70B, "intermediate_size"),
        (DEEPSEEK_V3, "qk_rope_head_dim"),
        (QWEN3_30B, "num_experts_per_tok"),
    ],
)
def test_an_error_names_the_missing_field_and_the_remedy(fields: Fields, missing: str) -> None:
    with pytest.raises(InvalidInput) as error:
        ModelShape.parse({name: value for name, value in fields.items() if name != missing}, "m/config.json")
    assert str(error.value).startswith(f"m/config.json: the field '{missing}' is missing")
    assert "--kv-heads" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_key_value_heads": "8"}, "'num_key_value_heads' is '8', not a number above 0"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries, but num_hidden_layers is 80"),
        ({"layer_types": ["quantum_attention"] * 80}, "layer_types has 'quantum_attention'; known are full_attention"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: Fields, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse(LLAMA_70B, **changes)


@given(
    st.sampled_from([LLAMA_70B, DEEPSEEK_V3, QWEN3_30B, GEMMA3_12B["text_config"], GPT_OSS_20B]),
    st.dictionaries(
        st.sampled_from(sorted({*LLAMA_70B, *DEEPSEEK_V3, *QWEN3_30B, *GPT_OSS_20B, *OTHER_FIELDS})),
        st.none()
        | st.booleans()
        | st.integers(-1, 200)
        | st.floats()
        | st.text(max_size=2)
        | st.lists(st.integers(0, 9)),
        max_size=3,
    ),
)
def test_whatever_a_config_says_it_is_read_or_refused_by_name(fields: Fields, changes: Fields) -> None:
    with contextlib.suppress(InvalidInput):
        shape = parse(fields, **changes)
        assert shape.elements_per_token > 0
        assert 0 < shape.weights.used(1) <= shape.weights.used(64) <= shape.weights.total
