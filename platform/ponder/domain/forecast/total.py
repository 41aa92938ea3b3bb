"""A total that is not known yet: its mean, its variance, and the interval that holds it nine times in ten."""

from __future__ import annotations

import math
from dataclasses import dataclass

COVERAGE = 0.9
Z = 1.6448536269514722
"""The standard normal distribution's 95th percentile, so that 5 % lie outside on either side."""


@dataclass(frozen=True, slots=True)
class Total:
    """A non-negative total. `ceiling` is the most it can be, and `floor` what it may well be for a reason that the
    variance does not tell, so that the interval reaches down to it.

    A sum of long-tailed amounts is close to a lognormal distribution with the same mean and variance (Fenton 1960,
    "The sum of log-normal probability distributions in scatter transmission systems").
    """

    mean: float
    variance: float
    ceiling: float = math.inf
    floor: float = math.inf

    @property
    def relative_variance(self) -> float:
        return self.variance / self.mean**2 if self.mean > 0 else 0.0

    @property
    def low(self) -> float:
        return min(self.floor, self._quantile(-Z))

    @property
    def high(self) -> float:
        return min(self.ceiling, self._quantile(Z))

    def times(self, factor: float, relative_variance: float = 0.0) -> Total:
        """Returns its product with an independent factor, known up to a relative variance (Goodman 1960)."""
        mean = self.mean * factor
        own = self.relative_variance
        ceiling = self.ceiling * factor if relative_variance == 0 and factor > 0 else math.inf
        floor = self.floor * factor if factor > 0 else math.inf
        return Total(mean, mean**2 * (own + relative_variance + own * relative_variance), ceiling, floor)

    def _quantile(self, z: float) -> float:
        """Returns a quantile of the lognormal distribution with this mean and variance."""
        variance = math.log1p(self.relative_variance)
        return self.mean * math.exp(z * math.sqrt(variance) - variance / 2)
