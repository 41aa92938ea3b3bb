"""What the options of `ponder worker` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponder_worker.main import Models, clouds_of
from ponder_worker.parent.notices.clouds import CLOUDS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo_is_the_shipped_pair_of_models() -> None:
    demo = Models.named("demo", None, None)
    assert demo.name == "demo"
    assert (Path(demo.model) / "config.json").is_file()
    assert demo.reward_model is not None
    assert (Path(demo.reward_model) / "reward.json").is_file()


def test_what_is_given_beside_demo_is_used() -> None:
    demo = Models.named("demo", "/models/reward", "mine")
    assert (demo.reward_model, demo.name) == ("/models/reward", "mine")


def test_a_folder_that_is_called_demo_is_that_folder(here: Path) -> None:
    (here / "demo").mkdir()
    assert Models.named("demo", None, None) == Models("demo", None, "demo")


def test_a_model_without_a_name_is_called_like_its_folder(here: Path) -> None:
    assert Models.named("/models/qwen/", None, None) == Models("/models/qwen/", None, "qwen")
    assert Models.named(".", None, None).name == here.name


@pytest.mark.parametrize("market", ["spot", "on_demand"])
def test_only_a_spot_machine_is_asked_for_notices_unless_the_option_says_so(market: str) -> None:
    assert clouds_of(None, market) == (list(CLOUDS) if market == "spot" else [])
    assert clouds_of("auto", market) == list(CLOUDS)
    assert clouds_of("gcp", market) == ["gcp"]
    assert clouds_of("none", market) == []
