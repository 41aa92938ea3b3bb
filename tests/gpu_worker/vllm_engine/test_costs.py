"""The operations of a token, against those that our own engine counts, and of checkpoints that it cannot run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ponder_worker.models.transformer import Transformer
from ponder_worker.vllm_engine.costs import flops_per_token


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["50GB", "100KB"])
def test_a_dense_checkpoint_costs_what_our_own_engine_says(
    llama_folder: Callable[..., Path], tied: bool, max_shard_size: str
) -> None:
    folder = llama_folder(tie_word_embeddings=tied, max_shard_size=max_shard_size)
    model = Transformer.load(folder, dtype=torch.float32, device=torch.device("cpu"))
    assert flops_per_token(folder) == model.flops_per_token


def checkpoint(folder: Path, config: dict[str, object], **tensors: torch.Tensor) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def test_of_a_mixture_only_the_chosen_experts_count(tmp_path: Path) -> None:
    experts = {f"layers__0__mlp__experts__{number}__up__weight": torch.zeros(8, 4) for number in range(6)}
    folder = checkpoint(
        tmp_path, {"num_experts": 6, "num_experts_per_tok": 2}, router__weight=torch.zeros(6, 4), **experts
    )
    assert flops_per_token(folder) == 2 * (6 * 4 + 2 * 8 * 4)


@pytest.mark.parametrize(
    "quantization",
    [{"bits": 4}, {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}],
    ids=["GPTQ", "compressed-tensors"],
)
def test_packed_weights_count_one_by_one_and_their_scales_not(tmp_path: Path, quantization: dict[str, object]) -> None:
    folder = checkpoint(
        tmp_path,
        {"quantization_config": quantization},
        q__qweight=torch.zeros(2, 16, dtype=torch.int32),
        q__scales=torch.zeros(4, 16),
        norm__weight=torch.zeros(16),
    )
    assert flops_per_token(folder) == 2 * 16 * 16
