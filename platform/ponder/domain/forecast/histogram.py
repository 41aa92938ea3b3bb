"""Counts of jobs by the tokens of a sample, on a logarithmic scale, and the distribution they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_BINS_AN_OCTAVE = 8
_FEWEST, _MOST = -6 * _BINS_AN_OCTAVE, 27 * _BINS_AN_OCTAVE
_ROUNDS = 25
_TOLERANCE = 1e-5
"""A round that moves mean and variance by less is the last: that is a hundred-thousandth of a sample's tokens."""
_LOG_OF_BIN = math.log(2) / _BINS_AN_OCTAVE
_SHAPE_JOBS = 4.0
"""The weight, in jobs, of the assumed spread beside the observed one."""
_PLACE_JOBS = 0.1
"""The weight, in jobs, of the assumed place while censored jobs are completed."""

Weights = Mapping[int, float]
"""Numbers of jobs, or probabilities, by bin."""


@dataclass(frozen=True, slots=True)
class Lognormal:
    """The distribution of a number whose logarithm is normal."""

    mean: float
    variance: float

    def probabilities(self) -> dict[int, float]:
        """Returns the probability of each bin within four standard deviations."""
        deviation = math.sqrt(max(self.variance, 1e-6))
        first, last = bin_of(math.exp(self.mean - 4 * deviation)), bin_of(math.exp(self.mean + 4 * deviation))
        weights = {
            place: math.exp(-(((place * _LOG_OF_BIN - self.mean) / deviation) ** 2) / 2)
            for place in range(first, last + 1)
        }
        whole = sum(weights.values())
        return {place: weight / whole for place, weight in weights.items()}


@dataclass(frozen=True, slots=True)
class Fit:
    """A lognormal distribution fitted to a histogram, and the histogram with its censored jobs completed by it."""

    lognormal: Lognormal
    num_jobs: float
    completed: Weights

    @property
    def squares(self) -> float:
        """The sum of the squared deviations of logarithms, without anything assumed."""
        whole = sum(self.completed.values())
        mean = sum(jobs * place for place, jobs in self.completed.items()) * _LOG_OF_BIN / max(whole, 1e-9)
        return sum(jobs * (place * _LOG_OF_BIN - mean) ** 2 for place, jobs in self.completed.items())


@dataclass(slots=True)
class Histogram:
    """Numbers of jobs by bin. Of the `censored` ones it is only known that they would have needed at least as much.

    tokens: the exact sum of those seen, if known.
    """

    seen: dict[int, float] = field(default_factory=dict)
    censored: dict[int, float] = field(default_factory=dict)
    tokens: float = 0.0

    @property
    def num_seen(self) -> float:
        return sum(self.seen.values())

    @property
    def num_jobs(self) -> float:
        return self.num_seen + sum(self.censored.values())

    @property
    def scale(self) -> float:
        """The factor that makes the bins right on the average. Jobs of equal length all err alike."""
        rounded = sum(jobs * middle(place) for place, jobs in self.seen.items())
        return self.tokens / rounded if self.tokens and rounded else 1.0

    def num_informative(self, cap: float) -> float:
        """Returns how many jobs tell all there is to know about a job with a cap on its samples."""
        return self.num_seen + sum(jobs for place, jobs in self.censored.items() if middle(place) >= 0.95 * cap)

    def fit(self, assumed: Lognormal) -> Fit:
        """Fits a lognormal distribution by expectation and maximisation (Dempster, Laird & Rubin 1977).

        Each round completes the censored jobs by the distribution so far: it moves them to the bins above theirs in
        proportion to its probabilities (Efron 1967, "redistribute to the right"). `assumed` is worth a few jobs.
        """
        found, completed = assumed, self._completed(assumed)
        for _ in range(_ROUNDS if self.censored else 1):
            before, found = found, self._maximised(completed, assumed)
            completed = self._completed(found)
            if max(abs(found.mean - before.mean), abs(found.variance - before.variance)) < _TOLERANCE:
                break
        return Fit(found, self.num_jobs, completed)

    def _maximised(self, completed: Weights, assumed: Lognormal) -> Lognormal:
        whole = sum(completed.values())
        total = sum(jobs * place for place, jobs in completed.items()) * _LOG_OF_BIN
        mean = (total + _PLACE_JOBS * assumed.mean) / (whole + _PLACE_JOBS) if self.censored else total / max(whole, 1)
        squares = sum(jobs * (place * _LOG_OF_BIN - mean) ** 2 for place, jobs in completed.items())
        variance = (squares + _SHAPE_JOBS * assumed.variance) / (_SHAPE_JOBS + max(whole - 1, 0))
        return Lognormal(mean if whole else assumed.mean, variance)

    def _completed(self, distribution: Lognormal) -> Weights:
        completed = dict(self.seen)
        probabilities = distribution.probabilities() if self.censored else {}
        for place, jobs in self.censored.items():
            above = {other: weight for other, weight in probabilities.items() if other >= place} or {place: 1.0}
            whole = sum(above.values())
            for other, weight in above.items():
                completed[other] = completed.get(other, 0.0) + jobs * weight / whole
        return completed


def bin_of(tokens: float) -> int:
    return min(max(round(math.log2(max(tokens, 1e-9)) * _BINS_AN_OCTAVE), _FEWEST), _MOST)


def middle(place: int) -> float:
    """Returns the number of tokens that a bin stands for. It differs from those in it by at most 4.5 %."""
    return math.exp2(place / _BINS_AN_OCTAVE)


def moments(weights: Weights, cap: float) -> tuple[float, float]:
    """Returns the mean and the variance of a distribution, given by weights, of numbers that a cap cuts off."""
    whole = sum(weights.values())
    mean = sum(weight * value for value, weight in _capped(weights, cap)) / whole
    return mean, sum(weight * (value - mean) ** 2 for value, weight in _capped(weights, cap)) / whole


def _capped(weights: Weights, cap: float) -> Iterator[tuple[float, float]]:
    return ((min(middle(place), cap), weight) for place, weight in weights.items())
