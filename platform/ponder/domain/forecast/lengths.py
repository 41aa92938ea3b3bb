"""The lengths of jobs to come, by model, strategy and level, learnt from settled jobs of all three.

The logarithms of lengths (tokens of a sample) are taken as normal within a cell, which is one level of one strategy.
Cells differ about their strategy, strategies about their model, and models about a general prior, each normally: the
hierarchical credibility model (Jewell 1975; Bühlmann & Straub 1970). So a cell with few jobs borrows from its
neighbours, and one with many rests on its own. How much neighbours differ is estimated from them, by the method of
moments of DerSimonian & Laird (1986).

The distribution about that place is the histogram of the cell, smoothed by the lognormal distribution: a Dirichlet
process (Ferguson 1973). The sum of N jobs of one that is worth A jobs has the variance s² N (A + N) / (A + 1), where s²
is that of one job: s² N A / (A + 1) by chance, and s² N² / (A + 1) because the distribution is known only from A jobs.
The latter is widened as Student's t is, because s² is known from A jobs, and 4 assumed ones, too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ponder.domain.forecast.histogram import Fit, Histogram, Lognormal, moments
from ponder.domain.forecast.total import Total, Z

_GENERAL = Lognormal(math.log(400), 0.7**2)
"""A sample of any model: between the medians of public traces, 150 (Azure 2023), 210 (Mooncake) and 610 (ServeGen's
reasoning clients), with a usual client's spread."""
_BETWEEN_MODELS = 1.2**2
_BETWEEN_STRATEGIES = 0.5**2
_BETWEEN_LEVELS = 0.5**2
_PRIOR_GROUPS = 2.0
"""The weight of these variances, in groups, beside the observed ones."""
_SMOOTHING_JOBS = 8.0
"""The weight of the lognormal distribution beside the histogram. It makes up for the tail that few jobs do not show."""

_UNKNOWN = "\0"
"""A strategy or level that no job has."""

CellKey = tuple[str, str, str]
"""Fingerprint, strategy and level."""


@dataclass(frozen=True, slots=True)
class Belief:
    """The knowledge of a place on the logarithmic scale: a normal distribution."""

    mean: float
    variance: float

    def widened(self, variance: float) -> Belief:
        return Belief(self.mean, self.variance + variance)


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of one cell that are alike: each generates at most `samples` times `cap` tokens."""

    key: CellKey
    num_jobs: float
    samples: float
    cap: float


@dataclass(frozen=True)
class Place:
    """The knowledge of one cell. `parent` is what is known without its own jobs."""

    fit: Fit
    histogram: Histogram
    belief: Belief
    parent: Belief

    @property
    def shared(self) -> float:
        """The share of the belief's variance that comes from the parent, and that other cells have too."""
        return self.belief.variance / self.parent.variance

    def job(self, samples: float, cap: float) -> tuple[float, float]:
        """Returns the mean and the variance of a job's tokens: `samples` times a sample's, none longer than the cap."""
        scale = self.histogram.scale
        mean, variance = moments(self.predictive, cap / scale)
        return samples * scale * mean, (samples * scale) ** 2 * variance

    def low_mean(self, cap: float) -> float:
        """Returns the mean of a sample if the place of the cell is as low as it may well be.

        A cap below the likely place leaves little variance, though all could be far shorter than the cap.
        """
        if self.histogram.num_jobs:
            return math.inf
        low = Lognormal(self.belief.mean - Z * math.sqrt(self.belief.variance), self.fit.lognormal.variance)
        return moments(low.probabilities(), cap)[0]

    def worth(self, cap: float) -> float:
        """Returns how many jobs the knowledge is worth. Those cut off before this cap tell only part of the truth."""
        worth = self.fit.lognormal.variance / self.belief.variance
        num_informative = self.histogram.num_informative(cap)
        return max(worth - (self.histogram.num_jobs - num_informative), num_informative, 0.1)

    @cached_property
    def predictive(self) -> dict[int, float]:
        around = Lognormal(self.belief.mean, self.fit.lognormal.variance + self.belief.variance)
        weights = {place: _SMOOTHING_JOBS * weight for place, weight in around.probabilities().items()}
        for place, jobs in self.fit.completed.items():
            weights[place] = weights.get(place, 0.0) + jobs
        return weights


class Lengths:
    """All that settled jobs tell about lengths, as histograms by cell."""

    def __init__(self, histograms: Mapping[CellKey, Histogram]) -> None:
        self._histograms = histograms
        self._places: dict[CellKey, Place] = {}

    def num_settled(self, fingerprint: str, strategy: str | None = None, level: str | None = None) -> int:
        """Returns the settled jobs of a cell, or those of a model or a strategy if the rest of the key is None."""
        wanted = (fingerprint, strategy, level)
        found = (
            histogram.num_jobs
            for key, histogram in self._histograms.items()
            if all(want is None or want == have for want, have in zip(wanted, key, strict=True))
        )
        return round(sum(found))

    def total(self, groups: Iterable[Group]) -> Total:
        """Returns the tokens that all jobs generate. What is not known about a cell errs in all of its jobs alike."""
        mean = chance = ceiling = floor = 0.0
        doubt: dict[CellKey, float] = defaultdict(float)
        for group in groups:
            place = self.place(group.key)
            of_one, variance = place.job(group.samples, group.cap)
            worth = place.worth(group.cap)
            mean += group.num_jobs * of_one
            ceiling += group.num_jobs * group.samples * group.cap
            floor += group.num_jobs * group.samples * place.low_mean(group.cap)
            chance += group.num_jobs * variance * worth / (worth + 1)
            doubt[group.key] += group.num_jobs * math.sqrt(variance / (worth + 1) * (worth + 4) / (worth + 2))
        shared = sum(amount * math.sqrt(self.place(key).shared) for key, amount in doubt.items()) ** 2
        own = sum(amount**2 * (1 - self.place(key).shared) for key, amount in doubt.items())
        return Total(mean, chance + shared + own, ceiling, floor)

    def place(self, key: CellKey) -> Place:
        """Returns what is known about a cell. Levels and strategies that no job has share one."""
        if key not in self._histograms:
            strategies = {strategy for fingerprint, strategy, _ in self._histograms if fingerprint == key[0]}
            key = (key[0], key[1] if key[1] in strategies else _UNKNOWN, _UNKNOWN)
        if key not in self._places:
            self._places[key] = self._found(key)
        return self._places[key]

    def _found(self, key: CellKey) -> Place:
        fits = self._by_strategy.get(key[0], {})
        own = fits.get(key[1], {}).get(key[2])
        parent = self._parent(key, fits)
        shape = self._shapes.get(key[0], _GENERAL.variance)
        fit = own or Fit(Lognormal(parent.mean, shape), 0.0, {})
        beliefs = [parent, *([_belief(own)] if own else [])]
        return Place(fit, self._histograms.get(key, Histogram()), _combined(beliefs), parent)

    def _parent(self, key: CellKey, fits: Mapping[str, Mapping[str, Fit]]) -> Belief:
        """Returns what the general prior, the model's other strategies and the strategy's other levels say."""
        fingerprint, strategy, level = key
        between_levels = self._between_levels[fingerprint] if fits else _BETWEEN_LEVELS
        said = {
            name: _combined([_belief(fit).widened(between_levels) for other, fit in levels.items()
                             if (name, other) != (strategy, level)])
            for name, levels in fits.items()
            if levels.keys() - ({level} if name == strategy else set())
        }  # fmt: skip
        others = [belief for name, belief in said.items() if name != strategy]
        between = _between([others], _BETWEEN_STRATEGIES)
        general = Belief(_GENERAL.mean, _BETWEEN_MODELS)
        model = _combined([general, *(belief.widened(between) for belief in others)]).widened(between)
        return _combined([model, *([said[strategy]] if strategy in said else [])]).widened(between_levels)

    @cached_property
    def _by_strategy(self) -> dict[str, dict[str, dict[str, Fit]]]:
        fits: dict[str, dict[str, dict[str, Fit]]] = defaultdict(lambda: defaultdict(dict))
        for (fingerprint, strategy, level), histogram in self._histograms.items():
            if histogram.num_jobs:
                assumed = Lognormal(_GENERAL.mean, self._shapes[fingerprint])
                fits[fingerprint][strategy][level] = histogram.fit(assumed)
        return fits

    @cached_property
    def _between_levels(self) -> dict[str, float]:
        """The variance between the levels of a strategy, by model."""
        return {
            fingerprint: _between(
                [[_belief(fit) for fit in levels.values()] for levels in fits.values()], _BETWEEN_LEVELS
            )
            for fingerprint, fits in self._by_strategy.items()
        }

    @cached_property
    def _shapes(self) -> dict[str, float]:
        """The pooled variance within the cells of each model, towards which that of a cell is shrunk (Smyth 2004)."""
        squares: dict[str, float] = defaultdict(lambda: 4 * _GENERAL.variance)
        freedom: dict[str, float] = defaultdict(lambda: 4.0)
        for (fingerprint, *_), histogram in self._histograms.items():
            fit = histogram.fit(_GENERAL)
            squares[fingerprint] += fit.squares
            freedom[fingerprint] += max(fit.num_jobs - 1, 0)
        return {fingerprint: squares[fingerprint] / freedom[fingerprint] for fingerprint in squares}


def _belief(fit: Fit) -> Belief:
    return Belief(fit.lognormal.mean, fit.lognormal.variance / fit.num_jobs)


def _combined(beliefs: Iterable[Belief]) -> Belief:
    """Returns what independent beliefs say together, each weighted by its precision."""
    known = list(beliefs)
    precision = sum(1 / belief.variance for belief in known)
    return Belief(sum(belief.mean / belief.variance for belief in known) / precision, 1 / precision)


def _between(families: Iterable[Sequence[Belief]], assumed: float) -> float:
    """Returns the variance of the true places within families of beliefs, beyond what their uncertainty explains."""
    weight, total = _PRIOR_GROUPS, _PRIOR_GROUPS * assumed
    for family in families:
        if len(family) < 2:
            continue
        middle = _combined(family).mean
        weights = [1 / belief.variance for belief in family]
        spread = sum(w * (belief.mean - middle) ** 2 for w, belief in zip(weights, family, strict=True))
        scale = sum(weights) - sum(w * w for w in weights) / sum(weights)
        total += max(0.0, spread - (len(family) - 1)) / scale * (len(family) - 1)
        weight += len(family) - 1
    return total / weight
