"""How configs of each family are read, old files included, and what is refused by name."""

from typing import Any

import pytest

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.model_error import InvalidFile, UnsupportedModel

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
ROPE = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def parse(family: str, **fields: Any) -> ModelConfig:
    return ModelConfig.parse(SIZES | {"architectures": [f"{family}ForCausalLM"]} | fields)


@pytest.mark.parametrize("kind", ["su", "yarn"])
def test_older_phi_3_files_call_their_longrope_by_other_names(kind: str) -> None:
    fields = {"original_max_position_embeddings": 256, "rope_theta": 1e4}
    old = parse("Phi3", rope_scaling={"type": kind, **ROPE}, **fields)
    assert old == parse("Phi3", rope_parameters={"rope_type": "longrope", **ROPE}, **fields)
    assert old.context_tokens == 256


def test_every_fourth_layer_of_smollm3_has_no_rotation_unless_the_config_says_otherwise() -> None:
    def rotated(**fields: Any) -> list[bool]:
        return [bool(rotation.frequencies) for rotation in parse("SmolLM3", **fields).rotations]

    assert rotated() == [True, True, True, False]
    assert rotated(no_rope_layer_interval=2) == [True, False, True, False]
    assert rotated(no_rope_layers=[0, 1, 1, 0, 1]) == [False, True, True, False]
    with pytest.raises(InvalidFile, match="no_rope_layers has 3 entries, but num_hidden_layers is 4"):
        rotated(no_rope_layers=[1, 1, 1])


def test_the_windows_of_smollm3_are_on_layers_without_rotation_unless_the_config_says_otherwise() -> None:
    fields = {"sliding_window": 32, "use_sliding_window": True}
    assert parse("SmolLM3", **fields).windows == (None, None, None, 32)
    kinds = ["sliding_attention", *["full_attention"] * 3]
    assert parse("SmolLM3", layer_types=kinds, **fields).windows == (32, None, None, None)
    assert parse("SmolLM3", sliding_window=32).windows == (None,) * 4


@pytest.mark.parametrize(
    ("family", "tied"), [("Llama", False), ("Granite", False), ("SmolLM3", True), ("Gemma2", True)]
)
def test_embeddings_are_tied_by_default_where_transformers_omits_the_field(family: str, tied: bool) -> None:
    assert parse(family).tied_embeddings == tied
    assert not parse(family, tie_word_embeddings=False).tied_embeddings


def test_gemma_3_has_a_rope_for_layers_with_a_window_in_old_words_and_in_new_ones() -> None:
    old = parse(
        "Gemma3",
        rope_theta=1e5,
        rope_local_base_freq=500.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        num_hidden_layers=7,
    )
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5}
    ropes = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}
    assert old == parse("Gemma3", rope_parameters=ropes, num_hidden_layers=7)
    assert [window is None for window in old.windows] == [False] * 5 + [True, False]
    assert len({*old.rotations}) == 2
    assert old.rotations[0] != old.rotations[5]


def test_gemma_s_patterns_of_layers_without_a_window() -> None:
    assert [window is None for window in parse("Gemma2").windows] == [False, True] * 2
    assert [window is None for window in parse("Gemma3", sliding_window_pattern=3).windows] == [
        False,
        False,
        True,
        False,
    ]


def test_what_transformers_leaves_out_of_a_gemma_3_config_has_its_value_there() -> None:
    """The text part of Gemma-3 4B names its sizes, and nothing else."""
    from transformers import Gemma3TextConfig

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    fields = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": sizes, "vision_config": {}}
    whole = Gemma3TextConfig(**sizes).to_dict() | {"architectures": ["Gemma3ForCausalLM"]}
    assert ModelConfig.parse(fields) == ModelConfig.parse(whole | {"dtype": "float32"})
    fields["text_config"] = sizes | {"use_bidirectional_attention": True, "architectures": None}
    with pytest.raises(UnsupportedModel, match="use_bidirectional_attention"):
        ModelConfig.parse(fields)


def test_scales_of_gemma_are_those_of_its_config() -> None:
    scales = parse("Gemma2", query_pre_attn_scalar=144, final_logit_softcapping=None).scales
    assert (scales.attention, scales.embedding) == (144**-0.5, 8.0)
    assert (scales.attention_cap, scales.logit_cap) == (50.0, 0.0)


@pytest.mark.parametrize("field", ["num_experts", "num_local_experts"])
def test_a_mixture_is_read_under_both_names_of_its_size(field: str) -> None:
    mixture = parse("Qwen3Moe", **{field: 8}, num_experts_per_tok=2, moe_intermediate_size=32).mixture
    assert mixture is not None
    assert (mixture.num_experts, mixture.num_chosen, mixture.expert_size, mixture.normalised) == (8, 2, 32, False)
    assert mixture.layers == (True,) * 4


def test_mixtral_sends_to_normalised_experts_of_the_intermediate_size() -> None:
    mixture = parse("Mixtral", num_local_experts=8, num_experts_per_tok=2, norm_topk_prob=False).mixture
    assert mixture is not None
    assert (mixture.expert_size, mixture.normalised) == (96, True)


@pytest.mark.parametrize("num_chosen", [0, 9])
def test_a_token_is_sent_to_some_of_the_experts_and_no_more_than_there_are(num_chosen: int) -> None:
    with pytest.raises(InvalidFile, match=r"num_experts_per_tok is \d; it must be between 1 and num_experts, 8"):
        parse("Olmoe", num_experts=8, num_experts_per_tok=num_chosen)


def test_a_mixture_without_a_size_is_refused_by_the_missing_field() -> None:
    with pytest.raises(InvalidFile, match="the field 'num_experts_per_tok' is missing"):
        parse("Olmoe", num_experts=8)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("Phi3", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; supported: 'silu', 'gelu_pytorch_tanh'"),
        ("Gemma2", {"hidden_activation": "relu"}, "hidden_activation 'relu' is not supported"),
        ("Gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention True is not supported"),
        ("Llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ("Olmo2", {"rope_parameters": {"rope_type": "ntk"}}, "rope type 'ntk' is not supported"),
        ("Granite", {"quantization_config": {"bits": 4}}, "quantization_config is not supported"),
        ("Phi3Small", {}, "'Phi3SmallForCausalLM' is not supported; supported: Llama, Mistral"),
    ],
)
def test_what_is_not_computed_is_refused_by_the_name_of_its_field(
    family: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        parse(family, **fields)
