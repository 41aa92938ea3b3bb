"""How two models share what memory there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ponder_worker.engine import Sampling
from ponder_worker.engine_process import loading
from ponder_worker.engine_process.loading import load
from ponder_worker.engine_process.options import EngineOptions


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
