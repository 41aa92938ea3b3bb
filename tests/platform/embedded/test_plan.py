"""Anything that would stop a stack halfway is reported before anything is started."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ponder.embedded.plan import Autoscaling, ModelPlan, Plan
from ponder.embedded.worker import WorkerOptions
from ponder.errors import SetupError


def plan(home: Path, model: Path, num_workers: int = 1) -> Plan:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = (ModelPlan("m", str(model), num_workers=num_workers),)
    return Plan(str(home), "127.0.0.1", port, models, "cpu", "spot", WorkerOptions())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.gguf"):
        (folder / name).write_text("{}")
    return folder


def test_a_folder_with_a_model_in_it_is_taken(tmp_path: Path, model: Path) -> None:
    plan(tmp_path / "home", model).check()


def test_a_path_that_is_not_a_model_is_refused_with_what_it_is(tmp_path: Path, model: Path) -> None:
    (model.parent / "empty").mkdir()
    for place, message in (
        (model.parent / "absent", "there is no file or folder .*absent: a model is org/name"),
        (
            model.parent / "empty",
            r"there is no config\.json in .*empty: a model is org/name.*a folder in Hugging Face's format",
        ),
        (model.parent, "perhaps you mean .*models/mine"),
        (model / "model.gguf", r"model\.gguf is a file, and not a GGUF file"),
        (model / "config.json", r"config\.json is a file, and not a GGUF file: a model is"),
    ):
        with pytest.raises(SetupError, match=message):
            plan(tmp_path / "home", place).check()
    (model / "tokenizer.json").unlink()
    with pytest.raises(SetupError, match=r"there is no tokenizer\.json"):
        plan(tmp_path / "home", model).check()


def test_without_workers_no_model_is_needed(tmp_path: Path) -> None:
    plan(tmp_path / "home", Path(), num_workers=0).check()


def test_only_the_api_and_the_dispatcher_get_the_key_of_webhooks_and_it_stays_the_same(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PONDER_WEBHOOK_KEY", raising=False)
    home = tmp_path / "home"
    stack = plan(home, model)
    stack.check()

    def keys() -> dict[str, str | None]:
        return {
            one.name: one.environment.get("PONDER_WEBHOOK_KEY") for one in stack.services("postgresql://", "redis://")
        }

    first = keys()
    assert first["serve"] == first["dispatcher"]
    assert len(first["serve"] or "") == 64
    assert first["worker"] is None
    assert keys() == first
    assert (home / "webhook_key").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("PONDER_WEBHOOK_KEY", "the operator's own")
    assert keys()["serve"] == "the operator's own"


def test_an_autoscaler_stands_for_the_workers_and_each_of_them_gets_its_share_of_the_cores(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.embedded.worker.num_cores", lambda: 8)
    fixed = plan(tmp_path / "home", model)
    stack = replace(fixed, autoscaling=Autoscaling(1, 4), options=WorkerOptions(device="cpu"))
    assert Plan.parse(json.dumps(stack.document())) == stack
    assert Plan.parse(json.dumps(fixed.document())) == fixed
    stack.check()
    service = stack.services("postgresql://", "redis://")[-1]
    words = list(service.arguments)
    options = words[words.index("autoscaler") : words.index("--")]
    assert service.name == "autoscaler"
    assert options == [
        *("autoscaler", "--provider", "local", "--min", "1", "--max", "4", "--model", "m", "--machine", "cpu:spot")
    ]
    worker = words[words.index("--") + 1 :]
    assert worker[:2] == ["--model", str(model)]
    assert (worker[worker.index("--threads") + 1], worker[worker.index("--device") + 1]) == ("2", "cpu")
