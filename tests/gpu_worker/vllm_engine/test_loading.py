"""Checkpoints that our own engine may not know, computed by vLLM as by transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm_build import NEEDS_VLLM

from ponder_worker.engine import SamplingParams
from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.inference_engine import InferenceEngine

from ..engine_conformance.conftest import HEAD_DIM, load_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300), NEEDS_VLLM]

PROMPT = list(range(40, 80))
GROUP = 32
FAMILIES: dict[str, dict[str, Any]] = {
    "Qwen3Moe": {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "DeepseekV3": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,  # vLLM takes that for granted
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
        # vLLM's kernel for the CPU is compiled for these two alone.
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "q_lora_rank": 32,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
    },
}


def finish(engine: InferenceEngine) -> None:
    while engine.has_work:
        engine.step()
    engine.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_of_experts_is_greedy_as_in_transformers(llama_folder: Callable[..., Path], family: str) -> None:
    import transformers

    folder = llama_folder(family=family, **FAMILIES[family])
    backend = {"attention_backend": "CPU_MLA"} if family == "DeepseekV3" else {}
    engine = load_vllm(folder, **backend)
    sampling = SamplingParams(16, temperature=0.0, stop_at_end=False)
    sequence = engine.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampling)
    finish(engine)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        for _ in range(16):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        logprobs = model(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1).amax(-1)
    assert sequence.tokens == ids[0].tolist()
    assert sequence.logprobs == pytest.approx(logprobs.tolist(), abs=1e-3)


def quantised(folder: Path) -> dict[str, torch.Tensor]:
    """Rounds the layers of a folder to four bits as GPTQ stores them, and returns the weights that it now stands for.

    A group of inputs shares a scale; eight numbers of four bits, from -8 to 7, are packed into an integer.
    """
    weights = load_file(folder / "model.safetensors")
    packed = {}
    for name, weight in list(weights.items()):
        if not name.endswith("_proj.weight"):
            packed[name] = weight
            continue
        num_outputs, num_inputs = weight.shape
        groups = weight.T.reshape(num_inputs // GROUP, GROUP, num_outputs)
        scales = (groups.abs().amax(1) / 7).to(torch.float16)
        numbers = (groups / scales[:, None].float()).round().clamp(-8, 7).to(torch.int32)
        weights[name] = (numbers * scales[:, None].float()).reshape(num_inputs, num_outputs).T.contiguous()
        eights = (numbers + 8).reshape(num_inputs // 8, 8, num_outputs)
        layer = name.removesuffix("weight")
        packed |= {
            f"{layer}qweight": (eights << torch.arange(0, 32, 4, dtype=torch.int32)[:, None]).sum(1, dtype=torch.int32),
            f"{layer}qzeros": torch.full((num_inputs // GROUP, num_outputs // 8), 0x77777777, dtype=torch.int32),
            f"{layer}scales": scales.contiguous(),
            f"{layer}g_idx": torch.arange(num_inputs, dtype=torch.int32) // GROUP,
        }
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": GROUP,
        "desc_act": False,
        "sym": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def test_a_gptq_checkpoint_has_the_logprobs_of_its_rounded_weights(
    llama_folder: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers
    from vllm import _custom_ops  # noqa: F401  (loads vLLM's kernels)

    if not hasattr(torch.ops._C, "cpu_gemm_wna16"):
        pytest.skip("vLLM's build has no kernel of four bits for this processor")
    plain = llama_folder(head_dim=HEAD_DIM)
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    folder = shutil.copytree(plain, tmp_path / "gptq")
    rounded = quantised(folder)
    text = [*PROMPT, *range(100, 140)]

    def logprobs() -> torch.Tensor:
        with torch.no_grad():
            found = model(torch.tensor([text])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        return found.gather(1, torch.tensor(text[len(PROMPT) :])[:, None])[:, 0]

    before = logprobs()
    model.load_state_dict(rounded, strict=False)
    wanted = logprobs()
    engine = load_vllm(folder, dtype="bfloat16")
    sequence = engine.score(text, start=len(PROMPT))
    finish(engine)
    error = (torch.tensor(sequence.logprobs) - wanted).abs()
    assert error.mean() < 0.05, "bfloat16 alone"
    assert error.mean() < (before - wanted).abs().mean() / 4, "it could as well be the weights before rounding"


def test_a_checkpoint_for_which_vllm_has_no_kernel_here_is_refused_before_a_job_needs_it(
    llama_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm import _custom_ops

    def missing(*_: object, **__: object) -> None:
        raise AttributeError("'_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'")

    monkeypatch.setattr(_custom_ops, "cpu_gemm_wna16", missing)
    folder = shutil.copytree(llama_folder(head_dim=HEAD_DIM), tmp_path / "gptq")
    quantised(folder)
    with pytest.raises(InvalidSetting, match=r"vLLM cannot compute it here: .*cpu_gemm_wna16"):
        load_vllm(folder, dtype="bfloat16")


def test_an_architecture_that_vllm_does_not_know_either_is_refused_in_its_words(
    llama_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(llama_folder(head_dim=HEAD_DIM), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["PonderForCausalLM"]}))
    with pytest.raises(InvalidSetting, match=r"vLLM cannot run it: .*PonderForCausalLM"):
        load_vllm(folder)
