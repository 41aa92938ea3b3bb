"""Reward models of several kinds in the engine process."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from ponder_worker.engine import Engine, Sequence
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines, load
from ponder_worker.models.model_error import UnsupportedModel

from ..process import STRATEGIES, Process
from ..searches import admitted, run

MESSAGES = [{"role": "user", "content": "Compute 1 + 1."}]
Scored = tuple[list[str], str, float]


def test_the_same_generator_without_its_reward_model_has_another_fingerprint(
    shared_process: Process, engine_options: dict[str, Any]
) -> None:
    alone = Process(**{**engine_options, "reward_model": None})
    alone.close()
    assert alone.ready.fingerprint != shared_process.ready.fingerprint


def scored_steps(folders: dict[str, Path], strategy: dict[str, Any]) -> tuple[Engines, list[Scored]]:
    """Returns the engines, and each step of one job that has a score: the texts before it, its own text, the score."""
    names = {name: str(folder) for name, folder in folders.items()}
    engines = load(EngineOptions(device="cpu", num_threads=1, kv_bytes=1 << 22, **names))
    (result,) = run(EngineCore(engines, lambda: None), [admitted(1, messages=MESSAGES, strategy=strategy)])
    assert result.error is None
    assert result.usage.reward_tokens > 0
    nodes = result.tree["nodes"]
    found = []
    for node in nodes[1:]:
        before, above = list[str](), node
        while above["parent"]:
            above = nodes[above["parent"]]
            before.insert(0, above["text"])
        assert (node["score"] is None) <= (not node["text"] or node["state"] == "cancelled"), "a step was not scored"
        if node["score"] is not None:
            found.append((before, node["text"], node["score"]))
    assert len(found) > 3
    return engines, found


def finished(engine: Engine, sequence: Sequence) -> Sequence:
    while sequence.finish_reason is None:
        engine.step()
    return sequence


@pytest.mark.parametrize("strategy", [STRATEGIES[2], STRATEGIES[4]], ids=["samples", "steps"])
def test_a_reward_model_with_another_tokenizer_scores_the_text_in_its_own_tokens(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path, strategy: dict[str, Any]
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_llama, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pieces = tokenizer["model"]["vocab"]
    first, last = 3, max(pieces.values())  # special tokens stay as they are
    tokenizer["model"]["vocab"] = {piece: first + last - id if id >= first else id for piece, id in pieces.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    engines, steps = scored_steps({"model": tiny_llama, "reward_model": folder}, strategy)
    reward = engines.reward
    assert reward is not None
    for before, text, score in steps:
        start = reward.tokenizer.render(MESSAGES) + reward.tokenizer.encode("".join(before))
        own = reward.tokenizer.encode(text)
        sequence = finished(reward, reward.score(start + own, start=len(start)))
        assert score == pytest.approx(sum(sequence.logprobs), rel=1e-4)
        assert own != engines.generator.tokenizer.encode(text)


@pytest.mark.parametrize("strategy", [STRATEGIES[2], STRATEGIES[4]], ids=["samples", "steps"])
def test_a_reward_model_that_is_read_at_marks_scores_every_step_behind_the_marks_of_those_before(
    tiny_llama: Path, reward_llama: Path, tmp_path: Path, strategy: dict[str, Any]
) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(reward_llama, folder)
    fields = {"kind": "token", "mark": " ?", "suffix": "+\n", "good": "+", "bad": "-"}
    (folder / "reward.json").write_text(json.dumps(fields))
    engines, steps = scored_steps({"model": tiny_llama, "reward_model": folder}, strategy)
    reward, readout = engines.reward, engines.readout
    assert reward is not None
    assert readout is not None
    for before, text, score in steps:
        tokens = reward.tokenizer.render(MESSAGES)
        for index, step in enumerate([*filter(None, before), text]):
            tokens += (reward.tokenizer.encode("+\n") if index else []) + reward.tokenizer.encode(step)
            tokens += reward.tokenizer.encode(" ?")
        sequence = finished(reward, reward.read(tokens, [len(tokens) - 1], readout))
        assert score == pytest.approx(math.log(sequence.readings[-1]), rel=1e-4)


def test_a_reward_model_without_the_head_of_its_kind_is_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(tiny_llama, folder)
    (folder / "reward.json").write_text(json.dumps({"kind": "classes", "mark": " ?"}))
    with pytest.raises(UnsupportedModel, match="these weights, which have no head"):
        load(EngineOptions(model=str(tiny_llama), reward_model=str(folder), kv_bytes=1 << 20))
