"""How two models share what memory there is."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ponder_worker.engine import InvalidSetting, Sampling
from ponder_worker.engine_process import loading
from ponder_worker.engine_process.loading import load
from ponder_worker.engine_process.options import EngineOptions

ON_GPU: Any = SimpleNamespace(device=torch.device("cuda"), kv_bytes_per_token=1000)


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
        generator.generate([5 + seed] * 40, prompt_length=40, sampling=Sampling(40, seed=seed, stop_at_end=False))
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


@pytest.mark.parametrize("gigabytes", [0, 1, 2])
def test_a_gpu_that_the_weights_fill_is_refused_with_its_sizes(monkeypatch: pytest.MonkeyPatch, gigabytes: int) -> None:
    monkeypatch.setattr(loading, "room_for_kv", lambda *_, **__: gigabytes << 30)
    with pytest.raises(InvalidSetting, match=f"has {gigabytes << 30} bytes .* at least {2 * 16 * 1000} more"):
        loading._room_for_kv([ON_GPU, ON_GPU], EngineOptions(model=""))


def test_what_a_step_needs_beside_the_weights_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "room_for_kv", lambda *_, **__: 3 << 30)
    assert loading._room_for_kv([ON_GPU], EngineOptions(model="")) == 1 << 30


def test_floats_hand_work_on_to_each_other_and_quantised_numbers_only_to_their_like(tiny_llama: Path) -> None:
    """A CPU's auto is float32, a GPU's bfloat16."""
    kinds = [("auto", "auto"), ("float32", "auto"), ("bfloat16", "auto"), ("float16", "auto")]
    kinds += [("int8", "auto"), ("auto", "fp8"), ("bfloat16", "fp8"), ("int8", "fp8")]
    prints = [
        loading._fingerprint([str(tiny_llama)], EngineOptions(model="", dtype=dtype, kv_dtype=kv_dtype))
        for dtype, kv_dtype in kinds
    ]
    assert len(set(prints[:4])) == 1
    assert prints[5] == prints[6]
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("free", "num_models", "parked"),
    [(64 << 30, 1, 4 << 30), (8 << 30, 1, 2 << 30), (8 << 30, 2, 1 << 30), (1 << 29, 1, 0), (0, 1, 0)],
)
def test_preempted_pages_take_a_part_of_what_the_host_has_free(
    monkeypatch: pytest.MonkeyPatch, free: int, num_models: int, parked: int
) -> None:
    monkeypatch.setattr(loading, "available_bytes", lambda: free)
    assert loading._room_for_parked([ON_GPU] * num_models) == parked
