"""The contents of model folders that are accepted, and those that are refused by name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.folder import fingerprint
from ponder_worker.models.checkpoint.weights import Weights
from ponder_worker.models.checkpoint.weights import load as load_weights
from ponder_worker.models.model_error import (
    InvalidFile,
    MismatchedTensor,
    MissingFile,
    MissingTensor,
    ModelError,
    UnsupportedModel,
)
from ponder_worker.models.transformer import Transformer

CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, for tests that break it."""
    shutil.copytree(tiny_llama, tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def load(folder: Path) -> Transformer:
    return Transformer.load(folder, dtype=torch.float32, device=CPU)


def tensors(weights: Weights) -> list[torch.Tensor]:
    """All tensors of a model, those of its head last."""
    layers = [getattr(layer, each.name) for layer in weights.layers for each in dataclass_fields(layer)]
    heads = [tensor for pair in weights.head for tensor in pair]
    found = (weights.embedding, weights.norm, weights.unembedding, *layers, *heads)
    return [tensor for tensor in found if tensor is not None]


def read_weights(folder: Path) -> Weights:
    """Read weights as they are before a model lays them out."""
    return load_weights(folder, ModelConfig.read(folder), dtype=torch.float32, device=CPU)


def test_config_is_read_in_the_words_of_transformers_4_and_5(tiny_llama: Path) -> None:
    fields = json.loads((tiny_llama / "config.json").read_text())
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    new = ModelConfig.parse(fields | {"rope_parameters": {"rope_theta": 5e5, **scaling}})
    del fields["rope_parameters"]
    old = ModelConfig.parse(fields | {"rope_theta": 5e5, "rope_scaling": scaling})
    assert new == old
    assert new.rotations[0].frequencies != ModelConfig.parse(fields).rotations[0].frequencies
    assert (new.num_layers, new.num_heads, new.num_kv_heads, new.head_dim, new.context_tokens) == (2, 4, 2, 16, 512)


def test_sharded_weights_are_those_of_one_file(llama_folder: Callable[..., Path]) -> None:
    folders = llama_folder(), llama_folder(max_shard_size="40KB")
    assert len(list(folders[1].glob("*.safetensors"))) > 1
    single, sharded = map(read_weights, folders)
    pairs = zip(tensors(single), tensors(sharded), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_flops_are_two_for_each_weight_of_a_matrix(tiny_llama: Path) -> None:
    from transformers import LlamaForCausalLM

    model = load(tiny_llama)
    matrices = sum(p.numel() for p in LlamaForCausalLM.from_pretrained(tiny_llama).parameters() if p.ndim == 2)
    assert model.flops_per_token == 2 * matrices
    assert model.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, UnsupportedModel, "'MambaForCausalLM' is not supported"),
        ({"architectures": None}, UnsupportedModel, "'none given' is not supported"),
        ({"hidden_act": "gelu"}, UnsupportedModel, "hidden_act 'gelu'"),
        ({"rope_parameters": {"rope_type": "su"}}, UnsupportedModel, "rope type 'su'"),
        ({"num_key_value_heads": 3}, InvalidFile, "num_key_value_heads=3"),
        ({"hidden_size": None}, InvalidFile, r"config\.json"),
        ({"num_hidden_layers": 3}, MissingTensor, "'model.layers.2.input_layernorm.weight'"),
        ({"tie_word_embeddings": False}, MissingTensor, "'lm_head.weight'"),
        ({"attention_bias": True}, MissingTensor, "'model.layers.0.self_attn.q_proj.bias'"),
        (
            {"intermediate_size": 97},
            MismatchedTensor,
            r"gate_proj.weight is \[96, 64\], but config.json asks for \[97, 64\]",
        ),
    ],
)
def test_an_unusable_model_is_refused_by_name(
    folder: Path, fields: dict[str, Any], error: type[ModelError], message: str
) -> None:
    change_config(folder, **fields)
    with pytest.raises(error, match=message):
        load(folder)


def test_missing_and_broken_files_are_refused_by_name(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InvalidFile, match=r"model\.safetensors: not a safetensors file"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingFile, match=r"no model\.safetensors"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InvalidFile, match=r"config\.json: not JSON"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(MissingFile, match=r"no config\.json"):
        load(folder)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/hostname", "sub/../../model.safetensors"])
def test_an_index_that_leads_out_of_its_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (folder / "sub").mkdir()
    for place in (tmp_path, tmp_path / "other"):
        shutil.copy(folder / "model.safetensors", place)
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in (load, fingerprint):
        with pytest.raises(InvalidFile, match="leads out of the model's folder"):
            read(folder)


@pytest.mark.parametrize("files", [None, [], {"a": 1}, {"a": ["b"]}])
def test_an_index_that_names_no_files_is_refused(folder: Path, files: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(InvalidFile, match="weight_map"):
        load(folder)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("held", ["other head", "same head", "head alone", "no head"])
def test_a_head_beside_the_embedding_is_used_or_not_as_transformers_does(
    folder: Path, held: str, is_tied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint prevails over config.json, and a warning says where they contradict each other."""
    from transformers import LlamaForCausalLM

    weights = load_file(folder / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    if held != "no head":
        weights["lm_head.weight"] = embedding.flip(0) if held == "other head" else embedding.clone()
    if held == "head alone":
        del weights["model.embed_tokens.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, tie_word_embeddings=is_tied)
    if not is_tied and held in ("no head", "head alone"):
        with pytest.raises(MissingTensor):  # where transformers invents the tensor
            load(folder)
        return
    ours, peer = read_weights(folder), LlamaForCausalLM.from_pretrained(folder)
    assert torch.equal(ours.embedding, peer.get_input_embeddings().weight)
    assert torch.equal(ours.unembedding, peer.get_output_embeddings().weight)
    shares = ours.embedding is ours.unembedding
    assert shares == (peer.get_input_embeddings().weight is peer.get_output_embeddings().weight)
    is_warned = any("tie_word_embeddings" in record.getMessage() for record in caplog.records)
    assert is_warned == (is_tied and held == "other head")


def test_names_inside_a_wrapper_with_a_value_head_are_those_of_the_model(folder: Path) -> None:
    plain = read_weights(folder)
    weights = {f"pretrained_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    head = {"v_head.summary.weight": torch.ones(1, 64), "v_head.summary.bias": torch.zeros(1)}
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, architectures=["LlamaForPrmModel"])
    wrapped = read_weights(folder)
    assert len(wrapped.head) == 1
    pairs = zip(tensors(plain), tensors(wrapped), strict=False)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_fingerprint_follows_the_contents_and_not_the_place(tiny_llama: Path, folder: Path) -> None:
    first = fingerprint(folder)
    assert first == fingerprint(tiny_llama)
    assert len(first) == 16
    (folder / "README.md").write_text("a model card is not the model")
    assert fingerprint(folder) == first
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    second = fingerprint(folder)
    (folder / "chat_template.jinja").write_text("other")
    assert len({first, second, fingerprint(folder)}) == 3
