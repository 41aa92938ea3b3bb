"""Integer nano-dollars: 1 $ = 1,000,000,000. No float ever enters the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

NANODOLLARS = 1_000_000_000
_MICROSECONDS_AN_HOUR = 3_600_000_000

_Key = TypeVar("_Key")


def nanodollars(dollars: Decimal | str) -> int:
    """Converts dollars exactly. Raises ValueError for more than nine decimal places."""
    scaled = Decimal(dollars) * NANODOLLARS
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{dollars} $ has more than nine decimal places")
    return int(scaled)


def bill(started_at: datetime, until: datetime, nanodollars_per_hour: int) -> int:
    """Returns the price of the time from `started_at` to `until`, rounded down.

    It is always counted from the start, so that differences between consecutive calls add up to the whole bill.
    """
    microseconds = (until - started_at) // timedelta(microseconds=1)
    return microseconds * nanodollars_per_hour // _MICROSECONDS_AN_HOUR


def share(amount: int, weights: Mapping[_Key, float]) -> dict[_Key, int]:
    """Divides `amount` by weight so that the shares add up to it exactly (largest remainder, ties by order).

    Weights are non-negative. If all are zero, the shares are equal. Without weights the amount must be zero.
    """
    if not weights:
        assert amount == 0, "an amount with nobody to bear it"
        return {}
    parts = _proportions(weights)
    total = sum(parts.values())
    if total == 0:
        parts = dict.fromkeys(weights, 1)
        total = len(parts)
    quotas = {key: divmod(amount * part, total) for key, part in parts.items()}
    shares = {key: whole for key, (whole, _) in quotas.items()}
    by_remainder = sorted(quotas, key=lambda key: -quotas[key][1])
    for key in by_remainder[: amount - sum(shares.values())]:
        shares[key] += 1
    return shares


def _proportions(weights: Mapping[_Key, float]) -> dict[_Key, int]:
    """Returns the same proportions as exact integers: a float is an integer over a power of two."""
    ratios = {key: float(weight).as_integer_ratio() for key, weight in weights.items()}
    common = max(denominator for _, denominator in ratios.values())
    return {key: numerator * (common // denominator) for key, (numerator, denominator) in ratios.items()}


def dollars(amount_nanodollars: int | float) -> str:
    """Formats an amount for people, with as many digits as its size needs: `$12.30`, `$0.0042`, `$0.0000018`."""
    value = amount_nanodollars / NANODOLLARS
    if value == 0:
        return "$0"
    if abs(value) >= 1:
        return f"${value:,.2f}"
    places = 1 - math.floor(math.log10(abs(value)))  # two significant digits
    return f"${value:.{min(max(2, places), 9)}f}"
