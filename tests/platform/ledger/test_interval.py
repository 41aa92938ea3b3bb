from __future__ import annotations

import random

import pytest

from ponder.ledger.interval import Sums, compare, ratio_interval, share_interval, student_quantile


def _sums(jobs: list[tuple[int, float]]) -> Sums:
    return Sums(
        len(jobs),
        sum(x for x, _ in jobs),
        sum(y for _, y in jobs),
        sum(x * x for x, _ in jobs),
        sum(y * y for _, y in jobs),
        sum(x * y for x, y in jobs),
    )


def _draw(source: random.Random, num: int, *, pass_rate: float, cost: float) -> Sums:
    return _sums([(int(source.random() < pass_rate), source.expovariate(1 / cost)) for _ in range(num)])


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_students_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(degrees) == pytest.approx(quantile, rel=0.02)


@pytest.mark.parametrize(("num", "pass_rate"), [(30, 0.6), (200, 0.2)])
def test_the_interval_of_a_cost_per_success_holds_the_truth_about_95_times_in_100(num: int, pass_rate: float) -> None:
    source, held = random.Random(7), 0
    for _ in range(1000):
        interval = ratio_interval(_draw(source, num, pass_rate=pass_rate, cost=3.0))
        assert interval is not None
        held += interval.low <= 3.0 / pass_rate and (interval.high is None or 3.0 / pass_rate <= interval.high)
    assert 925 <= held <= 975


def test_few_successes_leave_the_cost_without_an_upper_end_and_none_leave_no_interval() -> None:
    interval = ratio_interval(_sums([(1, 2.0)] + [(0, 2.0)] * 9))
    assert interval is not None
    assert interval.high is None
    assert 0 < interval.low < 20
    assert ratio_interval(_sums([(0, 1.0)] * 9)) is None
    assert ratio_interval(_sums([(1, 1.0)])) is None


def test_jobs_that_are_all_alike_leave_no_doubt() -> None:
    interval = ratio_interval(_sums([(1, 2.0)] * 5))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((2.0, 2.0))
    same = compare(_sums([(1, 2.0)] * 5), _sums([(1, 2.0)] * 9))
    assert (same.ratio, same.may_be_chance) == (1.0, True)


def test_equal_costs_differ_by_chance_about_5_times_in_100_and_a_double_cost_is_told() -> None:
    source, told = random.Random(11), 0
    for _ in range(1000):
        a, b = (_draw(source, 100, pass_rate=0.5, cost=1.0) for _ in range(2))
        told += compare(a, b).may_be_chance is False
    assert 25 <= told <= 75
    compared = compare(_draw(source, 300, pass_rate=0.5, cost=2.0), _draw(source, 300, pass_rate=0.5, cost=1.0))
    assert compared.may_be_chance is False
    assert compared.interval is not None
    assert compared.interval.high is not None
    assert compared.interval.low < 2.0 < compared.interval.high


def test_nothing_is_compared_with_a_side_that_never_passed() -> None:
    compared = compare(_sums([(0, 1.0)] * 5), _sums([(1, 1.0)] * 5))
    assert (compared.ratio, compared.interval, compared.may_be_chance) == (None, None, None)


def test_the_interval_of_a_share_is_wilson_s() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)
    assert share_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    # Newcombe 1998, table I.
    assert share_interval(81, 263) == (
        pytest.approx(0.2553, abs=1e-4),
        pytest.approx(0.3662, abs=1e-4),
    )
    assert share_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))
