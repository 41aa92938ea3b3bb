"""How many tokens to expect of a job that has not run."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.batch.request import JobRequest
from ponder.domain.batch.terms import ServedModel
from ponder.domain.forecast.experience import Experience, Observation
from ponder.domain.strategy import STRATEGY
from ponder.jobs.estimating.sizer import Sizer


def request(strategy: dict[str, Any], *, context: int = 32_768, **fields: Any) -> JobRequest:
    document = {
        "messages": [{"role": "user", "content": ""}],
        "sampling": {"max_tokens": 10},
        "strategy": STRATEGY.validate_python(strategy).model_dump(),
        "budget": {},
    } | fields
    model = ServedModel("demo", "f1", context, has_reward_model=True)
    return JobRequest("a", model, document, strategy["name"], None, None, oracle=False, judged=False)


def tokens(strategy: dict[str, Any], experience: Experience | None = None, **fields: Any) -> int:
    """Returns the tokens expected of a job beside the one token of its empty prompt."""
    sizer = Sizer(experience or Experience({}))
    return sizer.tokens(sizer.size(request(strategy, **fields))) - 1


@pytest.mark.parametrize(
    ("strategy", "num_samples"),
    [
        ({"name": "direct"}, 1),
        ({"name": "best_of_n", "n": 16}, 16),
        ({"name": "dvts", "n": 8}, 8),
        ({"name": "mcts", "n": 16, "width": 4}, 8),
        ({"name": "mcts", "n": 1, "width": 4}, 1),
        ({"name": "refine", "n": 5}, 1),
        ({"name": "adaptive", "n": 16, "num_probes": 4}, 10),
        ({"name": "adaptive", "n": 2, "num_probes": 4}, 2),
    ],
)
def test_it_is_so_many_samples_as_the_strategy_is_about_to_make(strategy: dict[str, Any], num_samples: int) -> None:
    assert tokens(strategy) == pytest.approx(10 * num_samples, rel=0.1)


def test_a_budget_is_the_most() -> None:
    assert tokens({"name": "best_of_n", "n": 16}, budget={"tokens": 32}) == pytest.approx(32, rel=0.1)
    effort = {"budget": {"tokens": 50}, "effort": {"tokens": 4}}
    assert tokens({"name": "direct"}, **effort) == 4, "the line's effort goes before the batch's budget"


def test_every_round_that_a_job_may_need_counts_up_to_its_budget() -> None:
    assert tokens({"name": "direct"}, max_rounds=50) == pytest.approx(500, rel=0.1)
    assert tokens({"name": "direct"}, max_rounds=50, budget={"tokens": 70}) == pytest.approx(70, rel=0.1)


def test_without_any_limit_a_sample_is_taken_to_be_of_usual_length() -> None:
    assert 400 < tokens({"name": "direct"}, sampling={}) < 2_000
    assert tokens({"name": "direct"}, sampling={}, context=50) < 50


def test_a_prompt_counts_by_its_bytes_or_its_ids() -> None:
    sizer = Sizer(Experience({}))
    assert sizer.size(request({"name": "direct"}, prompt="x" * 350)).prompt_tokens == pytest.approx(101)
    assert sizer.size(request({"name": "direct"}, prompt=[1] * 30)).prompt_tokens == 30
    assert sizer.size(request({"name": "direct"}, prompt="x" * 350, context=20)).prompt_tokens == 20


def test_settled_jobs_tell_what_to_expect_of_others() -> None:
    seen = Observation(30, False, 30, 20, 0, 40, None, 0.0)
    sums = {name: 500 * value for name, value in seen.sums().items()}
    experience = Experience({("f1", "direct", ""): sums})
    assert tokens({"name": "direct"}, experience, sampling={}) == pytest.approx(30, rel=0.1)
    size = Sizer(experience).size(request({"name": "direct"}, prompt="x" * 40))
    assert size.prompt_tokens == pytest.approx(21, rel=0.1)
