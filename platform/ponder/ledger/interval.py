"""Confidence intervals on shares, on ratios of sums over jobs, such as the cost per success, and on how two compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over `num` jobs of what each cost (y) and whether it passed (x), and of the squares and products."""

    num: int
    x: float
    y: float
    xx: float
    yy: float
    xy: float

    @property
    def ratio(self) -> float | None:
        return self.y / self.x if self.x else None


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that holds the truth with probability `CONFIDENCE`. `high` is None where it has no end."""

    low: float
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the cost per success of A compares with that of B.

    ratio: A's divided by B's. p_value: how probable a difference of this size would be by chance alone. All are None
    where one side has too few jobs or no success.
    """

    ratio: float | None
    interval: Interval | None
    p_value: float | None

    @property
    def may_be_chance(self) -> bool | None:
        return None if self.p_value is None else self.p_value >= 1 - CONFIDENCE


def share_interval(num: int, of: int) -> tuple[float, float]:
    """Returns the score interval of a share of independent trials, or (0, 1) without any trial.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927), 209-212.
    """
    assert 0 <= num <= of, f"{num} of {of}"
    if not of:
        return 0.0, 1.0
    share, z2 = num / of, _NORMAL.inv_cdf((1 + CONFIDENCE) / 2) ** 2
    middle, scale = share + z2 / (2 * of), 1 + z2 / of
    margin = math.sqrt(z2 * (share * (1 - share) / of + z2 / (4 * of * of)))
    return max(0.0, (middle - margin) / scale), min(1.0, (middle + margin) / scale)


def ratio_interval(sums: Sums) -> Interval | None:
    """Returns the interval of Σy/Σx by Fieller's theorem; None for fewer than two jobs or no success.

    E. C. Fieller, Some Problems in Interval Estimation, Journal of the Royal Statistical Society B 16 (1954), 175-185.
    It holds the ratios r for which the mean of y - r·x does not differ from 0. Jobs count as independent draws.
    """
    if sums.num < 2 or not sums.x:
        return None
    x, y, v_xx, v_yy, v_xy = _moments(sums)
    t2 = student_quantile(sums.num - 1) ** 2
    a, b, c = x * x - t2 * v_xx, x * y - t2 * v_xy, y * y - t2 * v_yy
    root = math.sqrt(max(0.0, b * b - a * c))
    if a <= 0:  # so few successes that they may be chance: the cost has no upper bound
        return Interval(max(0.0, c / (b + root)) if b + root > 0 else 0.0, None)
    return Interval(max(0.0, (b - root) / a), (b + root) / a)


def compare(a: Sums, b: Sums, variance: float | None = None) -> Comparison:
    """Compares two ratios by the delta method on the logarithm of A's ratio over B's.

    `variance` is that of this logarithm, if it is known from pairs. By default jobs are independent draws.

    A. Deng, U. Knoblich, J. Lu, Applying the Delta Method in Metric Analytics, KDD 2018,
    https://arxiv.org/abs/1803.06336.
    """
    if min(a.num, b.num) < 2 or not all((a.x, b.x, a.y, b.y)):
        return Comparison(None, None, None)
    ratio = (a.y / a.x) / (b.y / b.x)
    error = math.sqrt(_relative_variance(a) + _relative_variance(b) if variance is None else variance)
    reach = student_quantile(min(a.num, b.num) - 1) * error
    distance = abs(math.log(ratio))
    p_value = 2 * (1 - _NORMAL.cdf(distance / error)) if error else float(distance == 0)
    return Comparison(ratio, Interval(ratio * math.exp(-reach), ratio * math.exp(reach)), p_value)


def student_quantile(degrees: int) -> float:
    """Returns the two-sided quantile of Student's t: Abramowitz and Stegun, 26.7.5, and exactly for 1 and 2 degrees."""
    p = (1 + CONFIDENCE) / 2
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z, n = _NORMAL.inv_cdf(p), degrees
    terms = (
        z,
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    return sum(terms)


def _moments(sums: Sums) -> tuple[float, float, float, float, float]:
    """Returns the means of x and y, and the variances and the covariance of these means."""
    n = sums.num
    x, y, scale = sums.x / n, sums.y / n, 1 / (n * (n - 1))
    return (
        x,
        y,
        max(0.0, sums.xx - n * x * x) * scale,
        max(0.0, sums.yy - n * y * y) * scale,
        (sums.xy - n * x * y) * scale,
    )


def _relative_variance(sums: Sums) -> float:
    x, y, v_xx, v_yy, v_xy = _moments(sums)
    return max(0.0, v_yy / y**2 - 2 * v_xy / (x * y) + v_xx / x**2)
