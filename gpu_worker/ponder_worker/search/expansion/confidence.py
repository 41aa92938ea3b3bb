"""A sample's confidence, by its own tokens: DeepConf, Fu et al. 2025, https://arxiv.org/abs/2508.15260.

The paper averages the log-probabilities of the likeliest tokens at each place. Here it is the log-probability of the
sampled token alone, which every engine has at hand, so that confidence costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfidenceRule:
    """How confidence is measured, and when a sample is stopped for the lack of it.

    window: so many tokens in a row form a group, and the confidence of a group is their geometric mean probability.
    floor: a sample is stopped as soon as a group's confidence is below it; 0 never stops one.
    """

    window: int
    floor: float = 0.0


class ConfidenceWatch:
    """Follows the lowest group confidence of a growing sample. It looks at each token once."""

    def __init__(self, rule: ConfidenceRule) -> None:
        self._rule = rule
        self._floor = math.log(rule.floor) if rule.floor > 0 else -math.inf
        self._logprobs: list[float] = []
        self._sum = 0.0
        self._lowest = math.inf

    @property
    def num_seen(self) -> int:
        return len(self._logprobs)

    @property
    def confidence(self) -> float | None:
        """The lowest confidence of a group, or of the whole sample if it is shorter than a group; None if empty."""
        if not self._logprobs:
            return None
        return math.exp(self._lowest if self.num_seen >= self._rule.window else self._sum / self.num_seen)

    def is_low(self, logprobs: Iterable[float]) -> bool:
        """Takes further tokens up to one with which a group is below the floor. Returns whether there was one.

        Sums are updated token by token, so that they do not depend on how tokens are divided among calls.
        """
        window = self._rule.window
        for logprob in logprobs:
            self._logprobs.append(logprob)
            self._sum += logprob
            if self.num_seen > window:
                self._sum -= self._logprobs[-window - 1]
            if self.num_seen >= window:
                mean = self._sum / window
                self._lowest = min(self._lowest, mean)
                if mean < self._floor:
                    return True
        return False
