"""How amounts are written for people."""

from __future__ import annotations

import pytest

from ponder.console.figures import ago, count, duration, moment, money, percent, short


@pytest.mark.parametrize(
    ("nanodollars", "shown", "exact"),
    [
        (1, "$0.000000001", "$0.000000001"),
        (4_200_000, "$0.0042", "$0.0042"),
        (12_345_678_900_001, "$12,345.68", "$12,345.678900001"),
    ],
)
def test_money_is_readable_and_exact_on_hover(nanodollars: int, shown: str, exact: str) -> None:
    written = money(nanodollars)
    assert f">{shown}<" in written
    assert f'title="{exact}"' in written


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (123_456, "123 k"),
        (999_999, "1 M"),
        (1_250_000, "1.25 M"),
        (999_600_000, "1 G"),
        (3_000_000_000, "3 G"),
    ],
)
def test_large_counts_have_a_prefix(number: int, shown: str) -> None:
    assert shown in count(number)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (0.314159, "0.314"), (12.34, "12.3"), (999.9, "1,000"), (52_100, "52,100"), (2_000_000, "2 M")],
)
def test_a_number_of_an_axis_has_three_digits(number: float, shown: str) -> None:
    assert short(number) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (1, "100 %"), (0.0001, "<0.1 %"), (0.9999, ">99.9 %"), (0.123, "12.3 %")]
)
def test_a_share_never_looks_like_nothing_or_all(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.0004, "<1 ms"),
        (0.0123, "12 ms"),
        (0.44, "440 ms"),
        (0.96, "1 s"),
        (2.54, "2.5 s"),
        (59.6, "1 min"),
        (3_599.7, "1 h"),
        (7_500, "2 h 5 min"),
        (86_400 * 3 + 3_600, "3 d 1 h"),
        (86_401, "1 d"),
    ],
)
def test_a_time_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_what_is_not_known_is_a_dash() -> None:
    assert {money(None), count(None), percent(None), duration(None), ago(None), moment(None)} == {"–"}
