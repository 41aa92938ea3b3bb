"""Ranks candidates. The first one wins a tie, as in huggingface/search-and-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from ponder_worker.answers.equality import canonical
from ponder_worker.search.tree.candidate import Candidate

Select = Literal["best", "weighted", "majority"]


def rank(candidates: Sequence[Candidate], by: Select) -> list[Candidate]:
    """Sorts candidates from the best on. Complete texts come before those that were cut off.

    best: by score. majority: by how frequent the canonical answer is; a sample whose confidence is known has as much
    of a vote. weighted: by the sum of an answer's probabilities, of which the scores are the logarithms; a sum of
    logarithms would punish agreement.
    """
    whole = [candidate for candidate in candidates if candidate.is_complete]
    cut = [candidate for candidate in candidates if not candidate.is_complete]
    order = {"best": by_score, "weighted": _weighted, "majority": _majority}[by]
    return order(whole) + order(cut)


def vote(candidate: Candidate) -> str | None:
    """Returns the canonical answer that a candidate votes for. One without an answer, or cut off, has no vote."""
    return None if candidate.answer is None or not candidate.is_complete else canonical(candidate.answer)


def by_score(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sorts candidates from the highest score on; those without a score come last."""
    return sorted(candidates, key=_score, reverse=True)  # `reverse` keeps the order of ties


def _majority(candidates: Sequence[Candidate]) -> list[Candidate]:
    return _by_answer(candidates, lambda candidate: 1.0 if candidate.confidence is None else candidate.confidence)


def _weighted(candidates: Sequence[Candidate]) -> list[Candidate]:
    highest = max(map(_score, candidates), default=0.0)
    if not math.isfinite(highest):
        return _majority(candidates)
    return _by_answer(candidates, lambda candidate: math.exp(_score(candidate) - highest))


def _by_answer(candidates: Sequence[Candidate], weight: Callable[[Candidate], float]) -> list[Candidate]:
    """Sorts candidates by the sum of weights of their answer; those without an answer come last."""
    sums: dict[str, float] = {}
    for candidate in candidates:
        if candidate.answer is not None:
            key = canonical(candidate.answer)
            sums[key] = sums.get(key, 0.0) + weight(candidate)
    places = {key: place for place, key in enumerate(sorted(sums, key=lambda key: sums[key], reverse=True))}
    return sorted(
        candidates,
        key=lambda candidate: places[canonical(candidate.answer)] if candidate.answer is not None else len(places),
    )


def _score(candidate: Candidate) -> float:
    return -math.inf if candidate.score is None else candidate.score
