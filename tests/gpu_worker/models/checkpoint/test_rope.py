"""Every kind of rope that transformers knows: computed as there, or refused by its name."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.model_error import InvalidFile, UnsupportedModel

HEAD_DIM = 16
SHORT, LONG = [1.0 + 0.1 * i for i in range(8)], [2.0 + i for i in range(8)]
EXTENDED = {"original_max_position_embeddings": 64}
CASES: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 5e5},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 8.0, **EXTENDED},
    {"rope_type": "yarn", "factor": 8.0, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False, **EXTENDED},
    {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 0.4, **EXTENDED},
    {"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.25, **EXTENDED},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, **EXTENDED},
    {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 3.0, **EXTENDED},
    {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "attention_factor": 1.5, **EXTENDED},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **EXTENDED},
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    {"rope_type": "proportional", "factor": 2.0},
]


def parse(rope: dict[str, Any], **fields: Any) -> ModelConfig:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=512).to_dict()
    return ModelConfig.parse(config | {"architectures": ["LlamaForCausalLM"], "rope_parameters": rope} | fields)


@pytest.mark.parametrize("rope", CASES, ids=lambda rope: rope["rope_type"])
def test_cosines_and_sines_equal_those_of_transformers_to_the_last_bit(rope: dict[str, Any]) -> None:
    rope = {"rope_theta": 10000.0} | rope
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=512, rope_parameters=copy.deepcopy(rope)
    )
    rotation = parse(rope).rotations[0]
    positions = torch.arange(rotation.context_tokens)[None]
    expected = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    for own, peer in zip(rotation.table(HEAD_DIM // 2), expected, strict=True):
        assert torch.equal(own, peer[0, :, : HEAD_DIM // 2])


def test_every_kind_of_the_installed_transformers_is_computed_or_refused_by_name() -> None:
    tested = {case["rope_type"] for case in CASES}
    for kind in {*ROPE_INIT_FUNCTIONS, "axial", "ntk_alpha", "xdrope", "su"} - tested:
        with pytest.raises(UnsupportedModel, match=f"rope type '{kind}' is not supported; supported: 'default', "):
            parse({"rope_type": kind, "factor": 2.0})


def test_a_longrope_model_is_served_up_to_the_length_of_its_short_factors() -> None:
    rope = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}
    assert parse(rope, original_max_position_embeddings=64).context_tokens == 64
    assert parse(rope).context_tokens == 512


def test_fields_of_older_configs_are_read_too() -> None:
    old = parse({}, rope_parameters=None, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    new = parse({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    assert old.rotations == new.rotations
    assert old.rotations[0].frequencies[0] == pytest.approx(0.5)
    assert math.isclose(old.rotations[0].frequencies[4], 5e5**-0.5 / 2, rel_tol=1e-6)


def test_fields_that_are_missing_or_wrong_are_named() -> None:
    with pytest.raises(InvalidFile, match="the field 'factor' is missing"):
        parse({"rope_type": "linear"})
    with pytest.raises(InvalidFile, match="rope type 'longrope' has 2 factors for 8 pairs"):
        parse({"rope_type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [1.0, 1.0]})
    with pytest.raises(UnsupportedModel, match=r"'default' with partial_rotary_factor 0\.5 is not supported"):
        parse({"rope_type": "default", "partial_rotary_factor": 0.5})
    with pytest.raises(UnsupportedModel, match="differ by the type of layer"):
        parse({"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}})


def test_a_config_file_says_its_path(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    fields = json.loads((llama_folder() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"rope_parameters": {"rope_type": "su"}}))
    with pytest.raises(UnsupportedModel, match=rf"{tmp_path}/config\.json: rope type 'su'"):
        ModelConfig.read(tmp_path)
