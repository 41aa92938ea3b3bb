"""Spends more on harder jobs: a probe tells how hard a job is, and earlier jobs of the batch tell what helps.

Easy jobs end with their probes. The others get waves, each as large as all before it: more samples, or a beam search of
as many paths under the same root. The choice is what is more likely to solve a task for its tokens, while it is worth
it.

It is made by a bandit over difficulty and arm that learns while the batch runs. Gains are counted in solved tasks, as
the search itself believes. The gain per token has a gamma distribution around what was observed, and arms are chosen by
Thompson sampling (Thompson 1933, https://doi.org/10.1093/biomet/25.3-4.285). So a better arm is chosen more and more
often, and none is given up for good.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from ponder.domain.strategy import Adaptive, BeamSearch
from ponder_worker.answers.equality import canonical
from ponder_worker.search.ranking import rank
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.beam_search import beam_search
from ponder_worker.search.tree.candidate import Candidate

_WIDTH = 4
BORDERS = (0.05, 0.3)
"""The borders between buckets of difficulty, in the probability that the answer so far is right."""
SURE = 0.8
"""The probability from which on nothing more is spent."""
_EXPLORED = 0.03
"""The share of decisions that are made at random, whatever was learnt."""
_PRIOR_JOBS = 4.0
"""How many jobs the prior counts for."""
_PRIOR_GAIN = 0.25
"""The prior gain of an arm, as a share of what is unsolved."""

Sums = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to spend more. tokens: an estimate of what it takes."""

    name: str
    tokens: float


async def adaptive(search: Search, spec: Adaptive) -> list[Candidate]:
    made = min(spec.n, max(spec.num_probes, search.num_choices))
    first = search.expander.num_requested(search.root)
    candidates = await _sample(search, made)
    while candidates and made < spec.n and _believed(candidates) < SURE:
        start, size = search.expander.num_requested(search.root), min(made, spec.n - made)
        bucket = difficulty(made, _believed(candidates))
        arm = _decide(search, spec, candidates, bucket, size)
        found = await _spend(search, spec, arm, size)
        if arm is None or not found:  # nothing more is worth it, or the budget has no room
            break
        before, candidates = candidates, rank([*candidates, *found], by="weighted")
        _teach(search, lesson(bucket, arm, _gain(before, candidates), search.num_tokens_since(start)))
        made += size
    # A later round only runs because a verifier rejected the first: the job is solved at most once.
    solved = 0.0 if first else _believed(candidates)
    _teach(search, balance(solved, search.num_tokens_since(first)))
    return candidates


def _decide(search: Search, spec: Adaptive, ranked: list[Candidate], bucket: str, size: int) -> str | None:
    """Chooses what to spend the next wave on. It is recorded in the tree, because it rests on other jobs."""
    number, believed = search.expander.num_requested(search.root), _believed(ranked)
    sample = sum(len(step.ids) for candidate in ranked for step in candidate.node.path()) / len(ranked)
    arms = [Arm("samples", size * sample)]
    if size > 1 and search.engine.can_score:
        arms.append(Arm("beam", size * sample))

    def decision() -> str | None:
        random = search.random(number)
        return choose(search.learned(), bucket, arms, belief=believed, worth=spec.worth, random=random)

    arm: str | None = search.decide(f"after {number}", decision)
    return arm


async def _spend(search: Search, spec: Adaptive, arm: str | None, size: int) -> list[Candidate]:
    if arm == "beam":
        return await beam_search(search, BeamSearch(n=size, width=_WIDTH, separator=spec.separator))
    return await _sample(search, size) if arm == "samples" else []


async def _sample(search: Search, size: int) -> list[Candidate]:
    samples = search.complete(search.root, size, score=search.engine.can_score)
    return rank([candidate async for candidate in samples], by="weighted")


def _believed(ranked: list[Candidate]) -> float:
    return belief(ranked, ranked[0].answer) if ranked else 0.0


def _gain(before: list[Candidate], now: list[Candidate]) -> float:
    """Returns how much more likely the answer is to be right than the one chosen before, by all that is known now."""
    return max(0.0, belief(now, now[0].answer) - belief(now, before[0].answer))


def _teach(search: Search, lesson: dict[str, float]) -> None:
    for name, number in lesson.items():
        search.teach(name, number)


def belief(candidates: Sequence[Candidate], answer: str | None) -> float:
    """Returns the probability that this answer is right, judged without a reference; 0 if there is none.

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


def difficulty(num_paths: int, belief: float) -> str:
    """Returns the bucket of a job that is believed solved with this probability after `num_paths` paths."""
    return f"{num_paths}.{bisect(BORDERS, belief)}"


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
    if random.random() < _EXPLORED:
        return random.choice([arm.name for arm in arms])
    rates = {arm.name: _draw(sums, f"{bucket}.{arm.name}", arm, belief, random) for arm in arms}
    best = max(rates, key=lambda name: rates[name])
    least = sums.get("solved", 0.0) / sums["spent"] / worth if sums.get("spent") else 0.0
    return best if rates[best] >= least else None


def _draw(sums: Sums, key: str, arm: Arm, belief: float, random: Random) -> float:
    """Draws the arm's solved tasks per token from their posterior."""
    prior = _PRIOR_JOBS * _PRIOR_GAIN * (1.0 - belief)
    gain = prior + sums.get(f"{key}.gain", 0.0)
    # A probe that a deadline cut off before its first token would say that more samples take no tokens.
    tokens = _PRIOR_JOBS * max(1.0, arm.tokens) + sums.get(f"{key}.tokens", 0.0)
    return random.gammavariate(gain, 1.0 / tokens)


def _probability(score: float | None) -> float:
    """Returns a probability for whatever a reward model says. NaN counts as no evidence."""
    return 0.0 if score is None or math.isnan(score) else math.exp(min(0.0, score))
