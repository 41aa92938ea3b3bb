import json
from pathlib import Path

import pytest

from ponder_worker.models.model_error import MissingFile, UnsupportedModel
from ponder_worker.models.reward import Likelihood, read


@pytest.mark.parametrize(("aggregate", "score"), [("sum", -3.5), ("mean", -1.75), ("min", -3.0)])
def test_a_steps_likelihood_is_the_aggregate_of_its_logprobs(tmp_path: Path, aggregate: str, score: float) -> None:
    (tmp_path / "reward.json").write_text(json.dumps({"kind": "likelihood", "aggregate": aggregate}))
    assert read(tmp_path).score([-0.5, -3.0]) == score


def test_an_empty_step_scores_zero() -> None:
    assert Likelihood().score([]) == 0.0


@pytest.mark.parametrize("fields", [{"kind": "oracle"}, {}, {"kind": "likelihood", "aggregate": "max"}])
def test_unknown_kinds_and_aggregates_are_refused_by_name(tmp_path: Path, fields: dict[str, str]) -> None:
    (tmp_path / "reward.json").write_text(json.dumps(fields))
    with pytest.raises(UnsupportedModel, match="is not supported; supported: "):
        read(tmp_path)


def test_a_folder_without_a_reward_kind_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no reward\.json"):
        read(tmp_path)
