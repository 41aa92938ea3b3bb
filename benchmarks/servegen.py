"""The lengths of prompts and answers of ServeGen's clients (Xiang et al. 2025, arXiv:2505.09999)."""

import ast
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

ARCHIVE = "servegen_reason_deepseek-r1.tar.gz"


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths in tokens."""

    lengths: tuple[int, ...]
    cumulated: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[int, float]) -> "Lengths":
        return cls(tuple(weights), tuple(accumulate(weights.values())))

    def draw(self, chance: random.Random, number: int) -> Sequence[int]:
        return chance.choices(self.lengths, cum_weights=self.cumulated, k=number)


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a service: the lengths of its prompts, and of its answers, reasoning included."""

    prompts: Lengths
    answers: Lengths


def clients(archive: Path) -> Iterator[Client]:
    """Yields the clients that have lengths, over all windows."""
    with tarfile.open(archive) as traces:
        for member in traces.getmembers():
            if member.name.endswith("dataset.json") and (file := traces.extractfile(member)) is not None:
                windows = list(json.load(file).values())
                if answers := _added(windows, "output_tokens"):
                    yield Client(Lengths.of(_added(windows, "input_tokens")), Lengths.of(answers))


def _added(windows: Sequence[dict[str, str]], what: str) -> dict[int, float]:
    weights: dict[int, float] = {}
    for window in windows:
        for length, share in ast.literal_eval(window[what]).items():
            weights[int(length)] = weights.get(int(length), 0.0) + share
    return weights
