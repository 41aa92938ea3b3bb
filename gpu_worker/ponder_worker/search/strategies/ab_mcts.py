"""Adaptive branching Monte Carlo tree search, AB-MCTS-A: Inoue et al. 2025, https://arxiv.org/abs/2503.04412."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from ponder.domain.strategy import AbMcts
from ponder_worker.search.expansion.scores import probability
from ponder_worker.search.ranking import rank
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

_PRIOR = 0.5
"""Both parameters of the beta prior, which is Jeffreys'."""


@dataclass(slots=True, eq=False)
class Answer:
    """An answer with all refinements of it, or the prompt with all answers.

    turn: the user's turn that asks for refinements, once there is one; for the prompt, the prompt itself. value: its
    probability of being right. may_generate: whether another refinement of it may have room.
    """

    node: Node
    turn: Node | None = None
    value: float = 0.0
    may_generate: bool = True
    children: list[Answer] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return self.may_generate or any(child.is_open for child in self.children)

    def values(self) -> Iterator[float]:
        """Yields the values of this answer and of all below it."""
        yield self.value
        for child in self.children:
            yield from child.values()

    def chosen(self, source: Random) -> Answer:
        """Returns the answer to refine next, by Thompson sampling on the way down; the prompt, for a new answer.

        At each answer, generating (which its children's values speak for) competes with going on below it (which the
        values of their refinements speak for). Then its children compete by all values in their trees.
        """
        place = self
        while going := [child for child in place.children if child.is_open]:
            generated = [child.value for child in place.children]
            refined = [answer for child in place.children for answer in child.children]
            below = [value for answer in refined for value in answer.values()]
            if place.may_generate and _draw(generated, source) >= _draw(below, source):
                return place
            draws = [_draw(list(child.values()), source) for child in going]
            place = going[draws.index(max(draws))]
        return place


async def ab_mcts(search: Search, spec: AbMcts) -> list[Candidate]:
    """Makes n answers one after the other, each of them new or the refinement of an earlier one in a further turn.

    An answer that was cut off is not refined. A limit of tokens for one sample applies to the whole conversation.
    """
    root = Answer(search.root, turn=search.root)
    made: list[Candidate] = []
    first_draw = search.expander.num_requested(search.root) * spec.n
    while len(made) < spec.n and root.is_open:
        place = root.chosen(search.random(first_draw + len(made)))
        candidate = await _generated(search, spec, place)
        if candidate is None:
            place.may_generate = False
            continue
        made.append(candidate)
        value = probability(candidate.score)
        place.children.append(Answer(candidate.node, value=value, may_generate=candidate.is_complete))
    return rank(made, by="best")


async def _generated(search: Search, spec: AbMcts, place: Answer) -> Candidate | None:
    """Returns a new answer below this one, scored for itself; None if the budget has no room for it."""
    place.turn = place.turn or await search.say(place.node, spec.refine)
    if place.turn is None:
        return None
    made = [candidate async for candidate in search.complete(place.turn, score=True)]
    return made[0].scored(await search.path_score(made[0].node, "last")) if made else None


def _draw(values: Sequence[float], source: Random) -> float:
    """Draws the value of the next answer from the beta posterior of these, which count as fractions of a success."""
    return source.betavariate(_PRIOR + sum(values), _PRIOR + sum(1.0 - value for value in values))
