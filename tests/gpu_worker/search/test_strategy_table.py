"""The table of strategies."""

from __future__ import annotations

import pytest

from ponder.domain.strategy import PLAIN_STRATEGY_NAMES, STRATEGY
from ponder_worker.search.strategies import STRATEGIES


def test_every_strategy_that_a_stage_or_a_job_can_ask_for_has_its_line() -> None:
    assert set(STRATEGIES) == set(PLAIN_STRATEGY_NAMES)


@pytest.mark.parametrize(
    ("spec", "select"),
    [
        ({"name": "direct"}, "best"),
        ({"name": "self_consistency"}, "majority"),
        ({"name": "best_of_n", "select": "weighted"}, "weighted"),
        ({"name": "adaptive"}, "weighted"),
    ],
)
def test_further_rounds_are_ranked_as_the_strategy_ranks(spec: dict[str, str], select: str) -> None:
    assert STRATEGIES[spec["name"]].select(STRATEGY.validate_python(spec)) == select
