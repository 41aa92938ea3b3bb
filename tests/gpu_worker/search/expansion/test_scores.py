"""A path's score from its steps' scores."""

from __future__ import annotations

import math

import pytest

from ponder.domain.strategy import Aggregate
from ponder_worker.search.expansion.scores import aggregate


@pytest.mark.parametrize(("by", "expected"), [("last", 0.5), ("min", 0.2), ("product", 0.09), ("mean", 1.6 / 3)])
def test_logarithms_are_taken_together_as_the_probabilities_they_stand_for(by: Aggregate, expected: float) -> None:
    assert math.exp(aggregate([math.log(0.9), math.log(0.2), math.log(0.5)], by)) == pytest.approx(expected)


def test_the_mean_of_very_unlikely_steps_is_finite() -> None:
    assert aggregate([-2000.0, -3000.0], "mean") == pytest.approx(-2000.0 - math.log(2))
