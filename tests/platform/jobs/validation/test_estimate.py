"""Estimates of the tokens that a job may take."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.strategy import STRATEGY
from ponder.jobs.validation.estimate import estimate_tokens


def estimated(
    strategy: dict[str, Any], *, budget: dict[str, Any] | None = None, max_rounds: int = 1, **sampling: Any
) -> int:
    """Returns the estimate for a prompt of one token, less that token."""
    request = {
        "messages": [{"role": "user", "content": ""}],
        "sampling": {"max_tokens": 100} | sampling,
        "strategy": STRATEGY.validate_python(strategy).model_dump(),
        "budget": budget,
        "max_rounds": max_rounds,
    }
    return estimate_tokens(request, 32_768) - 1


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
    assert estimated(strategy) == 100 * num_samples


def test_a_budget_is_the_most() -> None:
    assert estimated({"name": "best_of_n", "n": 16}, budget={"tokens": 250}) == 250


def test_without_any_limit_a_sample_is_taken_to_be_of_usual_length() -> None:
    assert estimated({"name": "direct"}, max_tokens=None) == 4_096


def test_every_round_that_a_job_may_need_counts_up_to_its_budget() -> None:
    assert estimated({"name": "direct"}, max_rounds=50) == 5_000
    assert estimated({"name": "best_of_n", "n": 4}, max_rounds=3) == 1_200
    assert estimated({"name": "direct"}, max_rounds=50, budget={"tokens": 700}) == 700
