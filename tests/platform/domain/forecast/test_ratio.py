"""Ratios of two amounts, from sums over settled jobs."""

from __future__ import annotations

import random
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.forecast.ratio import Estimate, Ratio, mixed
from ponder.domain.forecast.total import Total

_ASSUMED = Estimate(1.0, 0.3, 0.1)


def ratio(pairs: list[tuple[float, float]]) -> Ratio:
    lessons = [Ratio.read(Ratio.lesson("a", x, y), "a") for x, y in pairs]
    return reduce(Ratio.__add__, lessons, Ratio())


@given(st.lists(st.tuples(st.integers(1, 1_000), st.integers(1, 1_000)), min_size=2, max_size=20), st.data())
def test_sums_of_parts_are_the_sums_of_all(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(pairs)))
    whole, parts = ratio(pairs).estimate(_ASSUMED), (ratio(pairs[:cut]) + ratio(pairs[cut:])).estimate(_ASSUMED)
    assert parts.value == pytest.approx(whole.value)
    assert parts.variance == pytest.approx(whole.variance)


def test_without_jobs_it_is_what_is_assumed() -> None:
    assert Ratio().estimate(_ASSUMED) == _ASSUMED


def test_many_jobs_outweigh_what_is_assumed() -> None:
    found = ratio([(100.0, 25.0)] * 1_000).estimate(_ASSUMED)
    assert found.value == pytest.approx(0.25, rel=0.01)
    assert found.variance < 1e-5


def test_the_truth_lies_in_nine_intervals_of_ten() -> None:
    draw = random.Random(3)

    def job() -> tuple[float, float]:
        x = draw.lognormvariate(5, 0.5)
        return x, x * 0.3 * draw.lognormvariate(0, 0.3)

    num_inside = 0
    for _ in range(300):
        found = ratio([job() for _ in range(30)]).estimate(_ASSUMED)
        batch = [job() for _ in range(200)]
        total = found.apply(Total(sum(x for x, _ in batch), 0.0), 200)
        num_inside += total.low <= sum(y for _, y in batch) <= total.high
    assert 0.85 <= num_inside / 300 <= 0.97


def test_a_mixture_weighs_groups_by_their_base() -> None:
    mixture = mixed([(Estimate(1.0, 0.0, 0.0), 300.0, 3), (Estimate(2.0, 0.0, 0.0), 100.0, 1)])
    assert mixture.value == pytest.approx(1.25)
    assert mixed([]) == mixed([(_ASSUMED, 0.0, 0)]) == Estimate(0.0, 0.0, 0.0)


@given(st.floats(1, 1e9), st.floats(0, 10), st.floats(0.01, 100), st.floats(0, 5))
def test_a_product_is_no_better_known_than_its_factors(
    mean: float, variance: float, factor: float, other: float
) -> None:
    total = Total(mean, variance * mean**2)
    product = total.times(factor, other)
    assert product.mean == pytest.approx(mean * factor)
    assert product.relative_variance >= max(total.relative_variance, other) * (1 - 1e-9)
    assert product.low <= product.high


def test_the_interval_of_nothing_is_nothing() -> None:
    nothing = Estimate(0.0, 0.0, 0.0).apply(Total(100.0, 25.0), 10)
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)
