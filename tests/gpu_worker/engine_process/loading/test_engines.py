"""In what models are computed, and how two of them share what memory there is."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.processor import automatic_precision
from ponder_worker.engine import SamplingParams
from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine_process.loading import engines as loading
from ponder_worker.engine_process.loading import own_engines
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Placement, load
from ponder_worker.engine_process.loading.vllm_engines import VllmLoader
from ponder_worker.models.model_error import MissingFile, UnsupportedModel


@pytest.mark.parametrize(("kv_split", "trades"), [(None, True), (0.75, False)])
def test_models_trade_their_memory_unless_a_split_is_given(
    tiny_llama: Path, tmp_path: Path, kv_split: float | None, trades: bool
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "reward")
    (folder / "reward.json").write_text('{"kind": "likelihood"}')
    loaded = load(EngineOptions(model=str(tiny_llama), reward_model=str(folder), kv_bytes=1 << 20, kv_split=kv_split))
    generator, reward = loaded.generator, loaded.reward
    assert reward is not None
    before = reward.free_tokens
    for seed in range(12):
        generator.generate([5 + seed] * 40, prompt_length=40, sampling=SamplingParams(40, seed=seed, stop_at_end=False))
    generator.step()
    assert (reward.free_tokens < before) == trades


def test_one_model_has_all_of_it(tiny_llama: Path) -> None:
    loaded = load(EngineOptions(model=str(tiny_llama), kv_bytes=1 << 20))
    assert loaded.generator.free_tokens == (1 << 20) // loaded.generator.model.kv_bytes_per_token
    assert loaded.longest == 512


def test_fp8_doubles_the_room_and_more_of_float32(tiny_llama: Path) -> None:
    plain, small = (
        load(EngineOptions(model=str(tiny_llama), kv_bytes=1 << 18, kv_dtype=kind)) for kind in ("auto", "fp8")
    )
    assert small.generator.free_tokens == (1 << 18) // (2 * 2 * 2 * (16 + 4)) // 16 * 16
    assert small.generator.free_tokens > 3 * plain.generator.free_tokens


@pytest.mark.parametrize("checkpoint", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("instructions", ["AVX512-BF16", None])
def test_auto_computes_a_checkpoint_in_what_this_processor_is_fast_with(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str, instructions: str | None
) -> None:
    monkeypatch.setattr(own_engines, "bfloat16_instructions", lambda: instructions)
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": checkpoint}))
    placements: list[Placement] = []
    loaded = load(EngineOptions(model=str(folder), device="cpu", kv_bytes=1 << 20), placements.append)
    is_kept = checkpoint == "bfloat16" and instructions is not None
    assert loaded.generator.model.dtype == (torch.bfloat16 if is_kept else torch.float32)
    assert placements[0].precisions == (automatic_precision(checkpoint, instructions),)


def test_a_dtype_that_was_asked_for_is_taken(tiny_llama: Path) -> None:
    placements: list[Placement] = []
    loaded = load(EngineOptions(model=str(tiny_llama), dtype="bfloat16", kv_bytes=1 << 20), placements.append)
    assert loaded.generator.model.dtype == torch.bfloat16
    assert [str(precision) for precision in placements[0].precisions] == ["bfloat16: --dtype says so"]


def test_a_generator_without_a_chat_template_is_refused_and_a_reward_model_needs_none(
    tiny_llama: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(tiny_llama, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(MissingFile, match=r"bare: no chat template .* take an instruct model"):
        load(EngineOptions(model=str(bare), kv_bytes=1 << 20))
    (bare / "reward.json").write_text('{"kind": "likelihood"}')
    assert load(EngineOptions(model=str(tiny_llama), reward_model=str(bare), kv_bytes=1 << 20)).reward is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_with_the_remedy(tiny_llama: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"--device cuda:1: torch .* finds no GPUs here: take --device cpu"):
        load(EngineOptions(model=str(tiny_llama), device="cuda:1"))


def test_floats_hand_work_on_to_each_other_and_quantised_numbers_only_to_their_like(tiny_llama: Path) -> None:
    """The choice of `auto` is float32 on one machine and bfloat16 on another."""
    kinds = [("auto", "auto"), ("float32", "auto"), ("bfloat16", "auto"), ("float16", "auto")]
    kinds += [("int8", "auto"), ("auto", "fp8"), ("bfloat16", "fp8"), ("int8", "fp8")]
    prints = [
        loading._fingerprint([str(tiny_llama)], EngineOptions(model="", dtype=dtype, kv_dtype=kv_dtype))
        for dtype, kv_dtype in kinds
    ]
    assert len(set(prints[:4])) == 1
    assert prints[5] == prints[6]
    assert len(set(prints)) == 4


def test_a_folder_that_forgets_the_templates_end_of_a_turn_is_told_at_the_start(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    load(EngineOptions(model=str(folder), kv_bytes=1 << 18))
    assert caplog.messages == []
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}<pad>{% endfor %}")
    load(EngineOptions(model=str(folder), kv_bytes=1 << 18))
    (message,) = caplog.messages
    assert "model: the chat template ends a turn with <pad>" in message
    assert "eos_token_id" in message


@pytest.mark.parametrize("change", [{"architectures": ["GPT2LMHeadModel"]}, {"quantization_config": {"bits": 4}}])
def test_a_checkpoint_that_is_not_for_our_engine_names_the_one_that_may_run_it(
    tiny_llama: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    for dtype in ("auto", "float32"):
        with pytest.raises(UnsupportedModel, match=r"--engine vllm .*`scripts/install.sh vllm`"):
            loading.load(EngineOptions(str(folder), device="cpu", dtype=dtype))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="this environment has vLLM")
def test_without_vllm_its_engine_is_refused_and_the_way_to_it_named(tiny_llama: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"no vLLM: `scripts/install.sh vllm`"):
        loading.load(EngineOptions(str(tiny_llama), device="cpu", engine="vllm"))


@pytest.mark.parametrize("switch", ["prefix_caching", "speculation"])
def test_switches_of_our_own_engine_are_refused_for_vllm(tiny_llama: Path, switch: str) -> None:
    with pytest.raises(InvalidSetting, match=f"--no-{switch.replace('_', '-')} is for our own engine"):
        loading.load(EngineOptions(str(tiny_llama), device="cpu", engine="vllm", **{switch: False}))


def test_our_engine_takes_no_engine_args(tiny_llama: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"--engine-arg seed=1: .*--engine vllm"):
        loading.load(EngineOptions(str(tiny_llama), device="cpu", engine_args=("seed=1",)))


def test_an_engine_never_continues_what_another_began(tiny_llama: Path, reward_llama: Path) -> None:
    def loader(args: dict[str, Any]) -> VllmLoader:
        return VllmLoader(EngineOptions(""), 2, True, args)

    folders = [str(tiny_llama), str(reward_llama)]
    own = EngineOptions("", reward_model="r")
    prints = [
        loading._fingerprint(folders, own),
        loading._fingerprint(folders, replace(own, engine="vllm"), loader({})),
        loading._fingerprint(folders, replace(own, engine="vllm", reward_engine="own"), loader({})),
        loading._fingerprint(folders, replace(own, engine="vllm"), loader({"quantization": "fp8"})),
    ]
    assert len(set(prints)) == 4
    assert loading._fingerprint(folders, replace(own, engine="vllm"), loader({"max_model_len": 64})) == prints[1]
