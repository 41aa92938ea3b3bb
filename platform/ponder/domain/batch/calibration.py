"""The worth of a reward model's probabilities: how often texts of such a probability were right in another batch."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ponder.domain.storable import JsonObject

LEAST_JOBS = 30
"""Fewer judged answers say too little."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A map from probabilities to chances that never falls. steps: (highest probability, chance), in order."""

    batch_id: str
    num_jobs: int
    steps: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, batch_id: str, judged: Iterable[tuple[float, bool]]) -> Calibration:
        """Fits it to (probability, whether the text was right) by isotonic regression, with the algorithm of pooled
        adjacent violators (Zadrozny and Elkan 2002, https://doi.org/10.1145/775047.775151).
        """
        pools: list[tuple[float, int, int]] = []  # (highest probability, answers, right ones)
        rows = sorted(judged)
        for probability, same in groupby(rows, key=lambda row: row[0]):
            rights = [is_right for _, is_right in same]
            pools.append((probability, len(rights), sum(rights)))
            while len(pools) > 1 and pools[-2][2] * pools[-1][1] >= pools[-1][2] * pools[-2][1]:
                highest, num, right = pools.pop()
                pools[-1] = (highest, pools[-1][1] + num, pools[-1][2] + right)
        # Laplace's rule of succession keeps a small pool from being certain. It may break the order, so the lower wins.
        chances = [(right + 1) / (num + 2) for _, num, right in pools]
        for index in reversed(range(len(chances) - 1)):
            chances[index] = min(chances[index], chances[index + 1])
        return cls(batch_id, len(rows), tuple((pool[0], chance) for pool, chance in zip(pools, chances, strict=True)))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Calibration:
        steps = tuple((highest, chance) for highest, chance in document["steps"])
        return cls(document["batch_id"], document["num_jobs"], steps)

    def document(self) -> JsonObject:
        return {"batch_id": self.batch_id, "num_jobs": self.num_jobs, "steps": [list(step) for step in self.steps]}

    def chance(self, probability: float) -> float:
        """Returns the chance that a text of this probability is right."""
        index = bisect_left(self.steps, (probability, 0.0))
        return self.steps[min(index, len(self.steps) - 1)][1]


def prompt_hash(prompt: Any) -> bytes:
    """Returns a hash by which problems are told apart. prompt: the messages of a request, or its prompt."""
    return hashlib.sha256(json.dumps(prompt, sort_keys=True).encode()).digest()[:16]
