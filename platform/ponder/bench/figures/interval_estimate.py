"""Statistics of samples: quantiles, rank correlation, and figures with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from ponder.bench.suite import Part
from ponder.ledger.interval import CONFIDENCE, share_interval

_T = TypeVar("_T")
_RESAMPLES = 1_000


class Estimate(Part):
    """A figure with the interval that holds the truth with probability `CONFIDENCE`; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def may_be_zero(self) -> bool:
        """Whether the interval does not exclude 0, so that a difference may be chance."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


def bootstrap(items: Sequence[_T], statistic: Callable[[Sequence[_T]], float | None], *, seed: int = 0) -> Estimate:
    """Returns a statistic of items with its percentile interval over resamples of the items.

    B. Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7 (1979), 1-26. Items must be
    independent: problems, where a problem has several samples.
    """
    value = statistic(items)
    if value is None or len(items) < 2:
        return Estimate(value=value)
    rng = Random(seed)  # noqa: S311
    drawn = (statistic(rng.choices(items, k=len(items))) for _ in range(_RESAMPLES))
    found = sorted(one for one in drawn if one is not None)
    tail = (1 - CONFIDENCE) / 2
    return Estimate(value=value, low=quantile(found, tail), high=quantile(found, 1 - tail))


def share(num: int, of: int) -> Estimate:
    """Returns a share of independent trials with its interval."""
    if not of:
        return Estimate(value=None)
    low, high = share_interval(num, of)
    return Estimate(value=num / of, low=low, high=high)


def mean_share(values: Sequence[float]) -> Estimate:
    """Returns the mean of shares, one of each problem, with its interval.

    Resampling values that are all 0 or all 1 shows no spread, however few they are, so there Wilson's interval is used.
    """
    is_uniform = bool(values) and set(values) in ({0.0}, {1.0})
    return share(round(sum(values)), len(values)) if is_uniform else bootstrap(values, mean)


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def quantile(ascending: Sequence[float], q: float) -> float | None:
    """Returns a quantile of sorted values, between neighbours by proportion."""
    if not ascending:
        return None
    place = q * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation; ties share their mean rank. None where one side does not vary."""
    a, b = _ranks(xs), _ranks(ys)
    if len(a) < 2:
        return None
    mean_rank = (len(a) - 1) / 2
    products = sum((x - mean_rank) * (y - mean_rank) for x, y in zip(a, b, strict=True))
    squares = [sum((rank - mean_rank) ** 2 for rank in side) for side in (a, b)]
    return products / math.sqrt(squares[0] * squares[1]) if all(squares) else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in range(first, last + 1):
            ranks[order[place]] = (first + last) / 2
        first = last + 1
    return ranks
