"""Reward models of several kinds in the engine process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ponder_worker.engine_process.loading import load
from ponder_worker.engine_process.options import EngineOptions
from ponder_worker.models.model_error import UnsupportedModel

from ..process import STRATEGIES, Process, job


def test_the_same_generator_without_its_reward_model_has_another_fingerprint(
    shared_process: Process, engine_options: dict[str, Any]
) -> None:
    alone = Process(**{**engine_options, "reward_model": None})
    alone.close()
    assert alone.ready.fingerprint != shared_process.ready.fingerprint


def test_a_reward_model_with_another_tokenizer_reads_the_text(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_llama, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []  # every character a token
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    process = Process(model=str(tiny_llama), reward_model=str(folder), num_threads=1)
    process.admit(job(1, STRATEGIES[4]), job(2, STRATEGIES[2]))
    finished, _ = process.finish(2)
    assert [result.error for result in finished.values()] == [None, None]
    assert all((result.choices[0].score or 0) < 0 for result in finished.values())
    process.close()


def test_a_reward_model_that_is_read_at_marks_scores_every_step(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_llama, folder)
    fields = {"kind": "token", "mark": " ?", "suffix": "+\n", "good": "+", "bad": "-"}
    (folder / "reward.json").write_text(json.dumps(fields))
    process = Process(model=str(tiny_llama), reward_model=str(folder), num_threads=1)
    process.admit(job(1, STRATEGIES[4]), job(2, STRATEGIES[2]))
    finished, _ = process.finish(2)
    assert [result.error for result in finished.values()] == [None, None]
    assert all((result.choices[0].score or 0) < 0 for result in finished.values())
    assert all(result.usage.reward_tokens > 0 for result in finished.values())
    process.close()


def test_a_reward_model_without_the_head_of_its_kind_is_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(tiny_llama, folder)
    (folder / "reward.json").write_text(json.dumps({"kind": "classes", "mark": " ?"}))
    with pytest.raises(UnsupportedModel, match="these weights, which have no head"):
        load(EngineOptions(model=str(tiny_llama), reward_model=str(folder), kv_bytes=1 << 20))
