"""Reward kinds: how a model folder's `reward.json` says that its model scores a step.

`likelihood`: the log-probabilities of the step's tokens under this (stronger) model, aggregated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ponder_worker.models.errors import UnsupportedModel
from ponder_worker.models.folder import read_json

Aggregate = Literal["sum", "mean", "min"]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A step's score from the natural log-probabilities of its tokens, `[num_tokens]`."""

    aggregate: Aggregate = "sum"

    def score(self, logprobs: Sequence[float]) -> float:
        """0 for an empty step: nothing was claimed, so nothing was unlikely."""
        if not logprobs:
            return 0.0
        if self.aggregate == "min":
            return min(logprobs)
        total = math.fsum(logprobs)
        return total / len(logprobs) if self.aggregate == "mean" else total


def read(folder: str | Path) -> Likelihood:
    """The reward kind of a model folder. Raises MissingFile, or UnsupportedModel for an unknown kind."""
    folder = Path(folder)
    fields = read_json(folder, "reward.json")
    kind, aggregate = fields.get("kind"), fields.get("aggregate", "sum")
    if kind != "likelihood":
        raise UnsupportedModel(f"{folder}/reward.json: kind {kind!r} is not supported; supported: 'likelihood'")
    if aggregate not in get_args(Aggregate):
        supported = ", ".join(repr(name) for name in get_args(Aggregate))
        raise UnsupportedModel(
            f"{folder}/reward.json: aggregate {aggregate!r} is not supported; supported: {supported}"
        )
    return Likelihood(aggregate)
