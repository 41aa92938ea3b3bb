"""GGUF files as model folders: what their metadata say of the model, and what is refused by its name."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponder_worker.engine import Engine
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.folder import fingerprint
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import (
    InvalidFile,
    MismatchedTensor,
    MissingTensor,
    ModelError,
    UnsupportedModel,
)

from ....engine.test_parity import own_logits, peer_logits
from ....gguf_files import Kind, byte_level_vocabulary, write_gguf

Make = Callable[..., Path]
TOKENS = torch.randint(3, 300, (60,), generator=torch.Generator().manual_seed(1)).tolist()
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64}


def llama3_factors(head_dim: int) -> np.ndarray[Any, Any]:
    """As `LlamaModel.generate_extra_tensors` in llama.cpp's convert_hf_to_gguf.py works them out."""
    factor, low, high, original = 8.0, 1.0, 4.0, 64
    factors = []
    for pair in range(0, head_dim, 2):
        wavelength = 2 * math.pi * 10000.0 ** (pair / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def scaling(**fields: Any) -> dict[str, Any]:
    return {f"arch__rope__scaling__{name}": value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("rope", "metadata", "extra"),
    [
        ({"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0}, scaling(type="linear", factor=4.0), {}),
        ({"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, {"arch__rope__scale_linear": 4.0}, {}),
        (YARN, scaling(type="yarn", factor=8.0, original_context_length=64), {}),
        (
            YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
            scaling(type="yarn", factor=8.0, original_context_length=64, yarn_beta_fast=16.0, yarn_beta_slow=2.0),
            {},
        ),
        (LLAMA3, {}, {"rope_freqs.weight": llama3_factors(16)}),
    ],
)
def test_scaled_rotations_are_those_of_the_folder_that_the_file_was_made_of(
    llama_folder: Make, tmp_path: Path, rope: dict[str, Any], metadata: dict[str, Any], extra: dict[str, Any]
) -> None:
    folder = llama_folder(rope_parameters=rope)
    path = write_gguf(folder, tmp_path / "m.gguf", extra=extra, **metadata)
    with model_folder(path) as made:
        torch.testing.assert_close(own_logits(made, TOKENS, [60]), peer_logits(folder, TOKENS), atol=1e-4, rtol=0)


def test_biases_of_all_matrices_are_read(llama_folder: Make, tmp_path: Path) -> None:
    folder = llama_folder(num_key_value_heads=1, attention_bias=True, mlp_bias=True)
    with model_folder(write_gguf(folder, tmp_path / "m.gguf")) as made:
        torch.testing.assert_close(own_logits(made, TOKENS, [60]), peer_logits(folder, TOKENS), atol=1e-4, rtol=0)


def test_a_file_is_a_folder_with_its_template_and_ends_and_gone_afterwards(tiny_llama: Path, tmp_path: Path) -> None:
    path = write_gguf(
        tiny_llama, tmp_path / "m.gguf", general__sampling__temp=0.6, general__sampling__top_p=0.95, eot_token_id=5
    )
    messages = [{"role": "user", "content": "ab? é"}]
    with model_folder(path) as made:
        assert made.name == "m.gguf"
        rendered = Tokenizer(made).render(messages)
        assert rendered[0] == 1, "the template's bos_token"
        assert Tokenizer(made).decode(rendered) == "user: ab? é\nassistant: "
        generation = json.loads((made / "generation_config.json").read_text())
        assert generation["temperature"] == pytest.approx(0.6)
        assert generation["top_p"] == pytest.approx(0.95)
        assert Tokenizer(made).eos_token_ids == {2, 5}
    assert not made.exists()
    assert Engine.load(path, num_pages=8).tokenizer.eos_token_ids == {2, 5}


def test_a_folder_is_itself(tiny_llama: Path) -> None:
    with model_folder(tiny_llama) as found:
        assert found == tiny_llama
    assert tiny_llama.exists()


def test_the_fingerprint_is_that_of_the_contents_whatever_the_name(tiny_llama: Path, tmp_path: Path) -> None:
    def of(name: str, **metadata: Any) -> str:
        with model_folder(write_gguf(tiny_llama, tmp_path / name, **metadata)) as made:
            return fingerprint(made)

    first = of("a.gguf")
    assert of("b.gguf") == first
    assert of("c.gguf", general__name="another") != first


@pytest.mark.parametrize(
    ("kind", "dtype"), [(Kind.F32, "float32"), (Kind.F16, "float16"), (Kind.BF16, "bfloat16"), (Kind.Q4_0, "bfloat16")]
)
def test_the_dtype_is_that_of_the_matrices_and_bfloat16_where_they_are_quantised(
    tiny_llama: Path, tmp_path: Path, kind: Kind, dtype: str
) -> None:
    with model_folder(write_gguf(tiny_llama, tmp_path / "m.gguf", kind)) as made:
        assert ModelConfig.read(made).dtype == dtype


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "name",
    [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_metadata_that_are_missing_are_named(llama_folder: Make, tmp_path: Path, architecture: str, name: str) -> None:
    folder = llama_folder(family={"llama": "Llama", "qwen2": "Qwen2"}[architecture])
    key = f"{architecture}.{name}"
    path = write_gguf(folder, tmp_path / "m.gguf", architecture=architecture, omit=(key,))
    with pytest.raises(InvalidFile, match=rf"m\.gguf: the metadata lacks '{key}'"), model_folder(path):
        pass


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"arch__attention__key_length": 0}, InvalidFile, "llama.attention.key_length is 0; it must be at least 1"),
        ({"arch__block_count": "two"}, InvalidFile, "llama.block_count is 'two'; it must be of type int"),
        ({"arch__block_count": 2**32 - 1}, MissingTensor, r"there is no tensor 'blk\.2\.attn_norm\.weight'"),
        ({"arch__block_count": 1}, UnsupportedModel, r"the tensor 'blk\.1\.attn_k\.weight' is not read"),
        ({"arch__feed_forward_length": 97}, MismatchedTensor, r"blk\.0\.ffn_gate\.weight is \[96, 64\], .* \[97, 64\]"),
        ({"arch__expert_count": 8}, UnsupportedModel, "GGUF files of mixtures of experts are not read"),
        ({"arch__rope__dimension_count": 8}, UnsupportedModel, "llama.rope.dimension_count is 8, but heads have 16"),
        (scaling(type="longrope"), UnsupportedModel, "llama.rope.scaling.type 'longrope' is not read; read: 'none'"),
        (
            scaling(type="yarn", factor=8.0, yarn_log_multiplier=0.1),
            UnsupportedModel,
            "llama.rope.scaling.yarn_log_multiplier of 'yarn' is not read",
        ),
        ({"architecture": "falcon"}, UnsupportedModel, "the architecture 'falcon' are not read; read: llama, qwen2"),
        ({"omit": ("token_embd.weight",)}, MissingTensor, "there is no tensor 'token_embd.weight'"),
        ({"omit": ("blk.1.ffn_up.weight",)}, MissingTensor, r"there is no tensor 'blk\.1\.ffn_up\.weight'"),
        ({"chat_template": 5}, InvalidFile, "tokenizer.chat_template is '5'; it must be of type str"),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(
    tiny_llama: Path, tmp_path: Path, change: dict[str, Any], kind: type[ModelError], message: str
) -> None:
    path = write_gguf(tiny_llama, tmp_path / "m.gguf", **change)
    with pytest.raises(kind, match=rf"m\.gguf: .*{message}"), model_folder(path):
        pass


def test_a_tensor_that_nothing_reads_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    extra = {"blk.1.attn_sub_norm.weight": np.ones(64, np.float32)}
    path = write_gguf(tiny_llama, tmp_path / "m.gguf", extra=extra)
    with (
        pytest.raises(UnsupportedModel, match=r"the tensor 'blk\.1\.attn_sub_norm\.weight' is not read"),
        model_folder(path),
    ):
        pass


def test_rope_factors_beside_another_scaling_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    extra = {"rope_freqs.weight": llama3_factors(16)}
    path = write_gguf(tiny_llama, tmp_path / "m.gguf", extra=extra, **scaling(type="linear", factor=2.0))
    with pytest.raises(UnsupportedModel, match=r"rope_freqs\.weight together with llama\.rope\.scaling"):
        model_folder(path).__enter__()


@pytest.mark.parametrize("num_more", [-1, 1])
def test_a_vocabulary_of_another_size_than_the_embedding_is_refused(
    tiny_llama: Path, tmp_path: Path, num_more: int
) -> None:
    vocabulary = byte_level_vocabulary(tiny_llama)
    for name, more in (("tokens", "[MORE]"), ("token_type", 1)):
        vocabulary[name] = vocabulary[name][:-1] if num_more < 0 else [*vocabulary[name], more]
    path = write_gguf(tiny_llama, tmp_path / "m.gguf", vocabulary=vocabulary)
    with (
        pytest.raises(
            MismatchedTensor, match=rf"token_embd\.weight is \[300, 64\], .* asks for \[{300 + num_more}, 64"
        ),
        model_folder(path),
    ):
        pass
