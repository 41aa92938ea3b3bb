from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain import money

START = datetime(2026, 1, 1, tzinfo=UTC)
_weights = st.lists(st.floats(0, 1e300), min_size=1, max_size=20)


@given(amount=st.integers(0, 10**15), weights=_weights)
def test_shares_add_up_and_differ_from_the_exact_quota_by_less_than_one(amount: int, weights: list[float]) -> None:
    shares = money.share(amount, dict(enumerate(weights)))
    assert sum(shares.values()) == amount
    exact = [Fraction(weight) for weight in weights] if any(weights) else [Fraction(1)] * len(weights)
    for number, weight in enumerate(exact):
        assert abs(shares[number] - amount * weight / sum(exact)) < 1


@given(
    steps=st.lists(st.integers(0, 10**10), max_size=20),
    price=st.integers(0, 10**12),
)
def test_the_bill_is_the_sum_of_its_parts_wherever_it_is_divided(steps: list[int], price: int) -> None:
    moments = [START]
    for step in steps:
        moments.append(moments[-1] + timedelta(microseconds=step))
    bills = [money.bill(START, moment, price) for moment in moments]
    parts = [later - earlier for earlier, later in pairwise(bills)]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == money.bill(START, moments[-1], price)


def test_an_hour_costs_its_price() -> None:
    assert money.bill(START, START + timedelta(hours=1), money.nanodollars("1.50")) == 1_500_000_000


def test_a_price_finer_than_nanodollars_is_refused() -> None:
    assert money.nanodollars("0.000000001") == 1
    with pytest.raises(ValueError, match="nine decimal places"):
        money.nanodollars("0.0000000001")


def test_an_amount_cannot_be_divided_without_weights() -> None:
    assert money.share(0, {}) == {}
    with pytest.raises(AssertionError):
        money.share(1, {})
