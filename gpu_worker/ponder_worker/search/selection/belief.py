"""How likely an answer is to be right, judged by scores and agreement alone, without a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ponder_worker.answers.equality import canonical
from ponder_worker.search.tree.candidate import Candidate


def belief(candidates: Sequence[Candidate], answer: str | None) -> float:
    """Returns the probability that this answer is right; 0 if there is none.

    A score is the logarithm of the probability that its text is right, so the answer is wrong only if every different
    text that gives it is wrong. A second copy of a text adds nothing. Without any scores, Laplace's rule of succession
    is applied to the votes.
    """
    if answer is None:
        return 0.0
    key = canonical(answer)
    whole = [candidate for candidate in candidates if candidate.is_complete]
    votes = [candidate for candidate in whole if candidate.answer is not None and canonical(candidate.answer) == key]
    if all(candidate.score is None for candidate in whole):
        return (len(votes) + 1) / (len(whole) + 2)
    scores = {candidate.text: candidate.score for candidate in votes}
    return 1.0 - math.prod(1.0 - _probability(score) for score in scores.values())


def _probability(score: float | None) -> float:
    """Returns a probability for whatever a reward model says. NaN counts as no evidence."""
    return 0.0 if score is None or math.isnan(score) else math.exp(min(0.0, score))
