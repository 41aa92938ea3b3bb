"""Whether the answer of one stage of a cascade is good enough, so that no further model is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ponder.domain.strategy import AcceptByAgreement, AcceptByReward, AcceptByVerifier, AnyAccept
from ponder_worker.answers.equality import canonical
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate

DECISION = "accept"
"""The name under which a tree keeps the decision: {accepted, by, and the numbers that it rests on}."""


async def decide(search: Search, rule: AnyAccept, ranked: Sequence[Candidate]) -> None:
    """Decides whether the first candidate is accepted, and records it in the tree, before anybody acts on it.

    A search that was told to end decides nothing: what it has is the answer.
    """
    if DECISION not in search.tree.decisions:
        decision = await _decision(search, rule, ranked)
        if search.tree.ended is None:
            search.tree.decide(DECISION, {"by": rule.by} | decision)


async def _decision(search: Search, rule: AnyAccept, ranked: Sequence[Candidate]) -> dict[str, Any]:
    match rule:
        case AcceptByVerifier():
            reply = await search.verify(ranked[0])
            return {"accepted": reply.passed is True}
        case AcceptByAgreement():
            share = agreement(ranked)
            return {"accepted": share >= rule.threshold, "agreement": share, "threshold": rule.threshold}
        case AcceptByReward():
            probability = await _probability(search, ranked[0])
            accepted = probability >= rule.threshold
            return {"accepted": accepted, "probability": probability, "threshold": rule.threshold}


def agreement(ranked: Sequence[Candidate]) -> float:
    """Returns the share of candidates that give the first one's answer. One that was cut off gives none."""
    first = _vote(ranked[0])
    return sum(_vote(candidate) == first for candidate in ranked) / len(ranked) if first is not None else 0.0


def _vote(candidate: Candidate) -> str | None:
    return canonical(candidate.answer) if candidate.answer is not None and candidate.is_complete else None


async def _probability(search: Search, chosen: Candidate) -> float:
    """Returns the reward model's probability that a text is right; 0 if the text is cut off or has no answer."""
    if _vote(chosen) is None:
        return 0.0
    score = chosen.score if chosen.score is not None else await search.path_score(chosen.node)
    return 0.0 if score is None or math.isnan(score) else math.exp(min(0.0, score))
