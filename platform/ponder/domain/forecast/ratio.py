"""The ratio of two amounts of a job, such as its prompt's tokens to its bytes, from sums over settled jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ponder.domain.forecast.total import Total

_PRIOR_JOBS = 4.0
"""The weight, in jobs, of what is assumed beside what was observed."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The sums over `n` jobs of x, y and their products, where y is about proportional to x."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    @classmethod
    def read(cls, sums: Mapping[str, float], name: str) -> Ratio:
        return cls(*(float(sums.get(f"{name}.{field}", 0.0)) for field in ("n", "x", "y", "xx", "xy", "yy")))

    @staticmethod
    def lesson(name: str, x: float, y: float) -> dict[str, float]:
        """Returns what one job adds to the sums."""
        terms = {"n": 1.0, "x": x, "y": y, "xx": x * x, "xy": x * y, "yy": y * y}
        return {f"{name}.{field}": value for field, value in terms.items()}

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(
            self.n + other.n, self.x + other.x, self.y + other.y,
            self.xx + other.xx, self.xy + other.xy, self.yy + other.yy,
        )  # fmt: skip

    def estimate(self, assumed: Estimate) -> Estimate:
        """Returns the ratio, shrunk towards an assumed one that is worth a few jobs (Bühlmann 1967).

        The variance is that of the ratio estimator (Cochran 1977, Sampling Techniques, section 6.4).
        """
        if self.n == 0 or self.x <= 0:
            return assumed
        average = self.x / self.n
        value = (self.y + _weight(assumed) * average * assumed.value) / (self.x + _weight(assumed) * average)
        squares = max(0.0, self.yy - 2 * value * self.xy + value * value * self.xx)
        own = squares / (average * value) ** 2 if value > 0 else 0.0
        # The mean of a variance known from so many jobs (Gelman et al. 2013, section 3.2), as Student's t has it.
        per_job = (own + _PRIOR_JOBS * assumed.per_job) / (self.n + _PRIOR_JOBS - 2)
        return Estimate(value, per_job / (self.n + _weight(assumed)), per_job)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio, the relative variance of the estimate, and that of one job about it."""

    value: float
    variance: float
    per_job: float

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.variance, self.per_job)

    def widened(self, variance: float) -> Estimate:
        """Returns what it says about a group of jobs among others, whose ratios differ by a relative variance."""
        return Estimate(self.value, self.variance + variance, self.per_job)

    def apply(self, base: Total, num_jobs: float) -> Total:
        """Returns the total y of jobs whose total x is `base`."""
        return base.times(self.value, self.variance + self.per_job / max(num_jobs, 1.0))


def mixed(parts: Sequence[tuple[Estimate, float, float]]) -> Estimate:
    """Returns the ratio of all jobs together from those of groups, each with its total x and its number of jobs.

    What is not known about the groups is taken to err in one direction, which is the worst case.
    """
    known = [(estimate, x * estimate.value, num_jobs) for estimate, x, num_jobs in parts if x > 0]
    whole, base = sum(y for _, y, _ in known), sum(x for _, x, _ in parts)
    if whole <= 0:
        return Estimate(0.0, 0.0, 0.0)
    doubt = sum(y * math.sqrt(estimate.variance) for estimate, y, _ in known) / whole
    jobs = sum(num_jobs for _, _, num_jobs in known)
    chance = sum(y * y * estimate.per_job / max(num_jobs, 1.0) for estimate, y, num_jobs in known) / whole**2
    return Estimate(whole / base, doubt**2, chance * jobs)


def _weight(assumed: Estimate) -> float:
    """Returns what an assumption is worth, in jobs: the fewer, the less is known about it."""
    return assumed.per_job / assumed.variance if assumed.variance > 0 else _PRIOR_JOBS
