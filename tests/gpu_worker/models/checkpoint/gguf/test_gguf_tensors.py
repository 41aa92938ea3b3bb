"""Weights of GGUF files: the numbers of the folder that the file was made of, quantised and back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import dequantize
from gguf.quants import quantize
from safetensors.torch import load_file

from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.gguf import gguf_tensors
from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.checkpoint.gguf.gguf_tensors import GgufTensors
from ponder_worker.models.model_error import UnsupportedModel

from ....engine.test_parity import own_logits, peer_logits
from ....gguf_files import Kind, permuted, random_blocks, write_gguf

WRITABLE = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]
K_KINDS = [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]
CPU = torch.device("cpu")
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": False, "head_dim": 32}),
    ("llama", {"family": "Mistral", "sliding_window": 33}),
    ("qwen2", {"family": "Qwen2"}),
    ("qwen3", {"family": "Qwen3", "head_dim": 32, "tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("architecture", "fields"), FAMILIES)
def test_logits_of_a_file_equal_those_of_transformers_from_the_folder_it_was_made_of(
    llama_folder: Callable[..., Path], tmp_path: Path, architecture: str, fields: dict[str, Any]
) -> None:
    folder = llama_folder(**fields)
    window = fields.get("sliding_window")
    metadata = {"arch__attention__sliding_window": window} if window else {}
    path = write_gguf(folder, tmp_path / "m.gguf", architecture=architecture, **metadata)
    tokens = torch.randint(3, 300, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    with model_folder(path) as made:
        found, expected = ModelConfig.read(made), ModelConfig.read(folder)
        assert found.norm_epsilon == pytest.approx(expected.norm_epsilon)  # a float32 in the file
        assert replace(found, norm_epsilon=expected.norm_epsilon) == expected
        torch.testing.assert_close(own_logits(made, tokens, [60]), peer_logits(folder, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [*WRITABLE, *K_KINDS], ids=lambda kind: kind.name)
def test_every_quantisation_is_undone_and_rows_of_queries_and_keys_are_put_back(
    llama_folder: Callable[..., Path], tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llama_folder(hidden_size=256, intermediate_size=512)
    monkeypatch.setattr(gguf_tensors, "_PIECE", 3 * 256)  # pieces that do not fit the number of rows
    path = write_gguf(folder, tmp_path / "m.gguf", kind)
    found = GgufTensors(GgufFile.open(path), torch.float32, CPU)
    stored = load_file(folder / "model.safetensors")
    assert set(found.keys()) == set(stored)
    heads = {"q_proj": 4, "k_proj": 2}
    for name, weight in stored.items():
        own = found.get_tensor(name)
        if weight.ndim == 1:
            assert torch.equal(own, weight)
            continue
        count = heads.get(name.split(".")[-2])
        rows = permuted(weight, count).numpy() if count else weight.numpy()
        packed = random_blocks(rows.shape, kind) if kind in K_KINDS else quantize(rows, kind)
        expected = torch.from_numpy(np.array(dequantize(packed, kind))).view(weight.shape)
        assert torch.equal(permuted(own, count) if count else own, expected)


def test_numbers_become_the_dtype_of_the_worker(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    path = write_gguf(llama_folder(), tmp_path / "m.gguf", Kind.Q8_0)
    tensors = [GgufTensors(GgufFile.open(path), dtype, CPU) for dtype in (torch.float32, torch.bfloat16)]
    wide, narrow = (each.get_tensor("model.layers.0.mlp.down_proj.weight") for each in tensors)
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(wide.bfloat16(), narrow)


def test_a_tensor_is_dequantised_in_pieces_of_bounded_size(
    llama_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(llama_folder(), tmp_path / "m.gguf", Kind.Q8_0)
    sizes: list[int] = []

    def recorded(data: np.ndarray[Any, Any], kind: Kind) -> np.ndarray[Any, Any]:
        values = dequantize(data, kind)
        sizes.append(values.size)
        return values

    monkeypatch.setattr(gguf_tensors, "_PIECE", 1000)
    monkeypatch.setattr(gguf_tensors, "dequantize", recorded)
    embedding = GgufTensors(GgufFile.open(path), torch.bfloat16, CPU).get_tensor("model.embed_tokens.weight")
    assert sum(sizes) == embedding.numel() == 300 * 64
    assert max(sizes) <= 1000


def test_a_quantisation_that_is_not_read_is_refused_with_those_that_are(
    llama_folder: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_gguf(llama_folder(), tmp_path / "m.gguf")
    file = GgufFile.open(path)
    name = "blk.0.ffn_down.weight"
    tensor = gguf_tensors.GgufTensor(name, (64, 96), Kind.IQ2_XXS, 0, 1)
    object.__setattr__(file, "tensors", {name: tensor})
    with pytest.raises(UnsupportedModel, match=rf"{name} is quantised as IQ2_XXS, .*read: F32, F16.*Q6_K: take a"):
        GgufTensors(file, torch.float32, CPU)
