"""The evidence that an answer is right, without a reference.

It is the reward model's score of a text, or what the reward model has said of texts of which the generator was as
confident: the log-probabilities of a sample's own tokens cost nothing, and a score costs about as much as a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ponder_worker.answers.equality import canonical
from ponder_worker.search.expansion.scores import probability
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.allocation.bandit import EXPLORED, Sums
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

SURE = 0.8
"""The probability from which on nothing more is spent."""
_DOUBTFUL = 0.5
"""From here up to SURE, the score of a probe is worth its tokens, because it may save the first wave."""
_HOPELESS = 0.1
"""From here up to SURE, a score is worth its tokens after a wave, because it may decide between answers."""
_PRIOR_TEXTS = 6.0
"""How many texts the prior counts for, of which half are right."""
_LEAST = -20
"""Texts of a lower surprisal than two to the power of half of this share a bucket."""


@dataclass(frozen=True, slots=True)
class Believed:
    """A candidate with the probability that it is right; None where there is no reward model."""

    candidate: Candidate
    probability: float | None


def surprisal(path: Sequence[Node]) -> float:
    """Returns the mean negative log-probability of these nodes' tokens; 0 if they have none."""
    num_tokens = sum(len(step.ids) for step in path)
    return -sum(step.logprob for step in path) / num_tokens if num_tokens else 0.0


def bucket_of(leaf: Node) -> int:
    """Returns the bucket of texts that are about as surprising to the generator, by a factor of at most 1.4."""
    value = surprisal(leaf.path())
    return max(_LEAST, math.floor(2 * math.log2(value))) if value > 0 else _LEAST


def lesson_of(candidate: Candidate) -> dict[str, float]:
    """Returns what a scored candidate adds to the sums of its bucket."""
    bucket = bucket_of(candidate.node)
    return {f"sure.{bucket}.right": probability(candidate.score), f"sure.{bucket}.num": 1.0}


def expected(sums: Sums, bucket: int, random: Random) -> float | None:
    """Returns the probability that a text of this bucket is right; None for a few, which are scored in any case.

    Neighbouring buckets count too. Otherwise a few lucky texts would make all later ones of their bucket pass unscored.
    """
    if random.random() < EXPLORED:
        return None
    near = range(bucket - 1, bucket + 2)
    right, num = (sum(sums.get(f"sure.{place}.{what}", 0.0) for place in near) for what in ("right", "num"))
    return (right + _PRIOR_TEXTS / 2) / (num + _PRIOR_TEXTS)


async def weigh(search: Search, found: Sequence[Believed], new: Sequence[Candidate]) -> list[Believed]:
    """Returns all candidates with the evidence for them, the most believable first. Scores those that are worth it.

    found: those of earlier waves, none for the probes.
    """
    least = _HOPELESS if found else _DOUBTFUL
    everything = [*found, *(Believed(candidate, None) for candidate in new)]
    return ranked([await _weighed(search, one, least) for one in everything])


async def _weighed(search: Search, one: Believed, least: float) -> Believed:
    """Weighs one candidate. What rests on other jobs is written into the tree before it is acted on."""
    candidate = one.candidate
    if not search.engine.can_score or not candidate.is_complete:
        return one
    if candidate.score is None:
        name = f"expected {'.'.join(map(str, candidate.node.address))}"

        def decision() -> float | None:
            return expected(search.learned(), bucket_of(candidate.node), search.random(candidate.node.seed))

        estimate: float | None = search.decide(name, decision)
        if estimate is not None and not least <= estimate < SURE:
            return Believed(candidate, estimate)
        candidate = candidate.scored(await search.path_score(candidate.node))
    elif one.probability is not None:
        return one
    search.teach(lesson_of(candidate))
    return Believed(candidate, probability(candidate.score))


def belief(found: Sequence[Believed], answer: str | None) -> float:
    """Returns the probability that this answer is right; 0 if there is none.

    The answer is wrong only if every different text that gives it is wrong. A second copy of a text adds nothing.
    Without any evidence of a text, Laplace's rule of succession is applied to the votes.
    """
    if answer is None:
        return 0.0
    key = canonical(answer)
    whole = [one for one in found if one.candidate.is_complete]
    votes = [one for one in whole if one.candidate.answer is not None and canonical(one.candidate.answer) == key]
    if whole and all(one.probability is None for one in whole):
        return (len(votes) + 1) / (len(whole) + 2)
    by_text = {one.candidate.text: one.probability or 0.0 for one in votes}
    return 1.0 - math.prod(1.0 - value for value in by_text.values())


def ranked(found: Sequence[Believed]) -> list[Believed]:
    """Sorts candidates by the belief in their answers, then by their own probabilities. Those cut off come last."""
    beliefs = {one.candidate.answer: 0.0 for one in found}
    beliefs |= {answer: belief(found, answer) for answer in beliefs}
    return sorted(
        found,
        key=lambda one: (
            one.candidate.is_complete,
            beliefs[one.candidate.answer] if one.candidate.is_complete else 0.0,
            one.probability or 0.0,
        ),
        reverse=True,
    )
