"""Trying again after what the verifier said: Madaan et al. 2023, https://arxiv.org/abs/2303.17651.

The feedback comes from outside, because a model that judges itself seldom gets better: Huang et al. 2023,
https://arxiv.org/abs/2310.01798.
"""

from __future__ import annotations

from ponder.domain.strategy import Refine
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search

_WRONG = "That answer is not right."
_AGAIN = "Please try again."


async def refine(search: Search, spec: Refine) -> list[Candidate]:
    """n tries in one conversation at most, the one that passes first, else the last whole one. Raises NoVerifier.

    A limit of tokens a sample is one of the whole conversation. When it or the budget has no room for another try, or
    has cut one off, or where nobody can judge it, that was the last.
    """
    tries: list[Candidate] = []
    place = search.root
    while len(tries) < spec.n:
        made = [candidate async for candidate in search.complete(place)]
        tries += made
        if not made or not made[0].is_complete:
            break
        verdict = await search.verify(made[0])
        if made[0].node.passed is not False or len(tries) == spec.n:
            break
        turn = await search.say(made[0].node, f"{verdict.feedback or _WRONG}\n{_AGAIN}")
        if turn is None:
            break
        place = turn
    return sorted(tries, key=lambda made: (not made.node.passed, not made.is_complete, -made.node.start))
