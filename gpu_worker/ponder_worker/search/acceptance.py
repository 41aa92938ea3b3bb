"""Whether the answer of one stage of a cascade is good enough, so that no further model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from ponder.domain.batch.calibration import Calibration
from ponder.domain.strategy import (
    AcceptByAgreement,
    AcceptByJudge,
    AcceptByReward,
    AcceptByVerifier,
    AnyAccept,
    Measured,
)
from ponder_worker.search import judging
from ponder_worker.search.expansion.scores import probability
from ponder_worker.search.ranking import vote
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate

DECISION = "accept"
"""The name under which a tree keeps the decision: {accepted, by, and the numbers that it rests on}."""
LEARNT = "measure"
"""The beginning of the names of the sums of answers of one measure."""
_NUM_PLACES = 10
_PRIOR_JOBS = 4.0
"""How many jobs the measure itself counts for."""
_LEAST = 0.01
_RANDOM = 1 << 20
"""The number of its randomness among the search's, which no strategy uses."""


async def decide(
    search: Search, rule: AnyAccept, ranked: Sequence[Candidate], calibration: Calibration | None = None
) -> None:
    """Decides whether the first candidate is accepted, and records it in the tree, before anybody acts on it.

    A search that was told to end decides nothing: what it has is the answer. calibration: what the reward model's
    probabilities are worth; None: what they say.
    """
    is_decided = DECISION in search.tree.decisions
    # A judge's questions are nodes of the tree: where they are not asked again, the next ones would take their places.
    if not is_decided or isinstance(rule, AcceptByJudge):
        _record(search, rule, await _decision(search, rule, ranked, calibration))


async def judge(search: Search, rule: AcceptByJudge, answer: str) -> None:
    """Decides the same about an answer that another model made, which is empty if it was cut off."""
    if DECISION not in search.tree.decisions:
        _record(search, rule, await _judged(search, rule, answer))


def _record(search: Search, rule: AnyAccept, decision: Mapping[str, Any]) -> None:
    """Records a decision, unless there is one or the search was told to end."""
    if DECISION not in search.tree.decisions and search.tree.ended is None:
        search.tree.decide(DECISION, {"by": rule.by, **decision})


async def _decision(
    search: Search, rule: AnyAccept, ranked: Sequence[Candidate], calibration: Calibration | None
) -> dict[str, Any]:
    match rule:
        case AcceptByVerifier():
            reply = await search.verify(ranked[0])
            return {"accepted": reply.passed is True}
        case AcceptByJudge():
            # An answer that was cut off is not shown to a judge.
            return await _judged(search, rule, ranked[0].said if ranked[0].is_complete else "")
        case AcceptByAgreement():
            return _measured(search, rule, "agreement", agreement(ranked))
        case AcceptByReward():
            believed = await _probability(search, ranked[0])
            if calibration is None:
                return _measured(search, rule, "probability", believed)
            chance = calibration.chance(believed)
            told = {"probability": believed, "chance": chance, "threshold": rule.threshold}
            return {"accepted": chance >= rule.threshold, "calibrated_on": calibration.batch_id} | told


async def _judged(search: Search, rule: AcceptByJudge, answer: str) -> dict[str, Any]:
    """Returns the decision of a judge, which is not asked about an empty answer."""
    votes = [0, 0, 0]
    if answer.strip():
        votes = await judging.assess(search, rule, search.engine.problem, search.engine.begun + answer)
    return {"accepted": votes[0] > votes[1], "votes": votes}


def _measured(search: Search, rule: Measured, name: str, measure: float) -> dict[str, Any]:
    if not rule.learn:
        return {"accepted": measure >= rule.threshold, name: measure, "threshold": rule.threshold}
    place = f"{LEARNT}{min(int(measure * _NUM_PLACES), _NUM_PLACES - 1)}"
    chance = _chance(search.learned(), place, measure, search.random(_RANDOM))
    accepted = chance >= rule.threshold
    return {"accepted": accepted, name: measure, "chance": chance, "threshold": rule.threshold, "place": place}


def _chance(sums: Mapping[str, float], place: str, measure: float, random: Random) -> float:
    """Draws the chance that an answer of this measure is right from its posterior. A priori the measure is right."""
    num, right = sums.get(f"{place}.num", 0.0), sums.get(f"{place}.right", 0.0)
    prior = _PRIOR_JOBS * min(max(measure, _LEAST), 1 - _LEAST)
    return random.betavariate(prior + right, _PRIOR_JOBS - prior + num - right)


def lessons(decision: Mapping[str, Any], *, is_right: bool) -> dict[str, float]:
    """Returns what a job adds to the sums of a stage when it is known whether the stage's answer was right."""
    place = decision.get("place")
    return {} if place is None else {f"{place}.num": 1.0, f"{place}.right": float(is_right)}


def agreement(ranked: Sequence[Candidate]) -> float:
    """Returns the share of candidates that give the first one's answer. One that was cut off gives none."""
    first = vote(ranked[0])
    return sum(vote(candidate) == first for candidate in ranked) / len(ranked) if first is not None else 0.0


async def _probability(search: Search, chosen: Candidate) -> float:
    """Returns the reward model's probability that a text is right; 0 if it is cut off or has no answer."""
    if vote(chosen) is None:
        return 0.0
    score = chosen.score if chosen.score is not None else await search.path_score(chosen.node)
    return probability(score)
