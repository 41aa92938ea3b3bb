"""Sparse mixtures: what a token costs, where experts are computed, and the precisions that they take."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder_worker.engine import Engine
from ponder_worker.models import int8
from ponder_worker.models import layer as layer_module
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.weights import load
from ponder_worker.models.layer import Experts
from ponder_worker.models.linear import Plain
from ponder_worker.models.operations import TorchOperations
from ponder_worker.models.transformer import Transformer
from ponder_worker.vllm_engine import costs

CPU = torch.device("cpu")
MIXTURES: list[dict[str, Any]] = [
    {"family": "Mixtral", "num_local_experts": 6},
    {
        **{"family": "Qwen3Moe", "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32},
        **{"num_hidden_layers": 3, "mlp_only_layers": [1], "norm_topk_prob": True, "head_dim": 32},
    },
    {"family": "Olmoe", "num_experts": 8, "num_experts_per_tok": 2, "pad_token_id": 0},
]


@pytest.mark.parametrize("fields", MIXTURES, ids=lambda fields: fields["family"])
def test_only_the_experts_that_a_token_is_sent_to_count_as_its_operations(
    llama_folder: Callable[..., Path], fields: dict[str, Any]
) -> None:
    folder = llama_folder(**fields)
    model = Transformer.load(folder, dtype=torch.float32, device=CPU)
    layer = model.weights.layers[0]
    assert layer.router is not None
    chosen = fields.get("num_experts_per_tok", 2)
    expected = layer.query_key_value.numel() + layer.output.numel() + layer.router.numel()
    expected += chosen * (layer.gate_up[0].numel() + layer.down[0].numel())
    if fields["family"] != "Qwen3Moe":
        assert model.flops_per_token == 2 * (2 * expected + 300 * 64)
    assert model.flops_per_token == costs.flops_per_token(folder)  # which reads the files for vLLM


@pytest.mark.parametrize("normalised", [False, True])
def test_experts_in_one_kernel_are_those_computed_one_after_the_other(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, normalised: bool
) -> None:
    """On a CPU the reference takes the kernel's place."""
    folder = llama_folder(**MIXTURES[0])
    config = ModelConfig.read(folder)
    layer, mixture = load(folder, config, dtype=torch.float32, device=CPU).layers[0], config.mixture
    assert mixture is not None
    mixture = replace(mixture, normalised=normalised)

    def plain(weight: torch.Tensor, bias: torch.Tensor | None, *, as_int8: bool) -> Plain:
        return Plain(weight, bias)

    monkeypatch.setattr(layer_module, "linear", plain)
    one_by_one = Experts(layer, mixture, as_int8=False)
    together = Experts(layer, mixture, as_int8=False)
    together._gate_up._products, together._down._products = [], []
    x, gate = torch.randn(50, 64), TorchOperations().gate
    torch.testing.assert_close(together(x, gate), one_by_one(x, gate))
    assert together.kept()[0] is layer.gate_up


def test_a_row_is_the_same_beside_other_rows_and_alone(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder(**MIXTURES[1])
    config = ModelConfig.read(folder)
    layer = load(folder, config, dtype=torch.float32, device=CPU).layers[0]
    assert config.mixture is not None
    experts, x, gate = Experts(layer, config.mixture, as_int8=False), torch.randn(40, 64), TorchOperations().gate
    together = experts(x, gate)
    for row in range(0, 40, 7):
        torch.testing.assert_close(experts(x[row : row + 1], gate), together[row : row + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not int8.can_multiply(), reason="torch has no exact int8 operators here")
@pytest.mark.parametrize("fields", MIXTURES, ids=lambda fields: fields["family"])
def test_experts_in_int8_score_nearly_as_in_float32(llama_folder: Callable[..., Path], fields: dict[str, Any]) -> None:
    scores = []
    for dtype in (torch.float32, torch.int8):
        engine = Engine.load(llama_folder(**fields), num_pages=16, dtype=dtype)
        sequence = engine.score(list(range(3, 131)), start=1)
        while engine.has_work:
            engine.step()
        scores.append(torch.tensor(sequence.logprobs))
    assert float((scores[0] - scores[1]).abs().mean()) < 0.2 * float(scores[0].std())


@pytest.mark.parametrize("fields", MIXTURES, ids=lambda fields: fields["family"])
def test_mixtures_keep_keys_and_values_in_float8(llama_folder: Callable[..., Path], fields: dict[str, Any]) -> None:
    scores = []
    for kv_dtype in (None, torch.float8_e4m3fn):
        engine = Engine.load(llama_folder(**fields), num_pages=16, kv_dtype=kv_dtype)
        sequence = engine.score(list(range(3, 131)), start=1)
        while engine.has_work:
            engine.step()
        scores.append(torch.tensor(sequence.logprobs))
    assert 0 < float((scores[0] - scores[1]).abs().mean()) < 0.2 * float(scores[0].std())
