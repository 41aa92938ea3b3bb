"""A bandit over difficulty and arm: what is next to be spent on a job, by what has helped others.

Gains are counted in solved tasks, as the searches themselves believe. The gain per token has a gamma distribution
around what was observed, and arms are chosen by Thompson sampling (Thompson 1933,
https://doi.org/10.1093/biomet/25.3-4.285). So a better arm is chosen more and more often, and none is given up for
good.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

BORDERS = (0.05, 0.3)
"""The borders between buckets of difficulty, in the probability that the answer so far is right."""
EXPLORED = 0.03
"""The share of decisions that are made at random, whatever was learnt."""
_LATE = 3
"""Waves from this one on share a bucket."""
_PRIOR_JOBS = 10.0
"""How many jobs the prior counts for."""

Sums = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to spend more.

    num_paths: how many paths it adds. tokens: an estimate of what it takes, scored ones included. prior_gain: the share
    of what is unsolved that it is expected to solve, before anything is known.
    """

    name: str
    num_paths: int
    tokens: float
    prior_gain: float


def difficulty(num_waves: int, belief: float) -> str:
    """Returns the bucket of a job that is believed solved with this probability after so many waves."""
    return f"{min(num_waves, _LATE)}.{bisect(BORDERS, belief)}"


def lesson(bucket: str, arm: str, gain: float, tokens: int) -> dict[str, float]:
    """Returns what one job adds to the sums after it tried an arm. gain: solved tasks, at least 0."""
    key = f"{bucket}.{arm}"
    return {f"{key}.gain": gain, f"{key}.tokens": tokens}


def balance(belief: float, tokens: int) -> dict[str, float]:
    """Returns what one job adds to the sums when it has ended."""
    return {"solved": belief, "spent": tokens}


def choose(sums: Sums, bucket: str, arms: Sequence[Arm], *, belief: float, worth: float, random: Random) -> str | None:
    """Returns the arm to spend on next; None if no arm is likely to solve enough for its tokens.

    worth: what one more solved task may cost, in multiples of what one has cost on average.
    """
    if random.random() < EXPLORED:
        return random.choice([arm.name for arm in arms])
    rates = {arm.name: _draw(sums, f"{bucket}.{arm.name}", arm, belief, random) for arm in arms}
    best = max(rates, key=lambda name: rates[name])
    least = sums.get("solved", 0.0) / sums["spent"] / worth if sums.get("spent") else 0.0
    return best if rates[best] >= least else None


def _draw(sums: Sums, key: str, arm: Arm, belief: float, random: Random) -> float:
    """Draws the arm's solved tasks per token from their posterior."""
    prior = _PRIOR_JOBS * arm.prior_gain * (1.0 - belief)
    gain = prior + sums.get(f"{key}.gain", 0.0)
    # A probe that a deadline cut off before its first token would say that more samples take no tokens.
    tokens = _PRIOR_JOBS * max(1.0, arm.tokens) + sums.get(f"{key}.tokens", 0.0)
    return random.gammavariate(gain, 1.0 / tokens)
