"""Refinement by feedback: Madaan et al. 2023, https://arxiv.org/abs/2303.17651.

The feedback is a verifier's, because models that judge themselves seldom improve: Huang et al. 2023,
https://arxiv.org/abs/2310.01798.
"""

from __future__ import annotations

from ponder.domain.strategy import Refine
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate

_WRONG = "That answer is not right."
_AGAIN = "Please try again."


async def refine(search: Search, spec: Refine) -> list[Candidate]:
    """Returns up to n tries of one conversation: first one that passed, then the last complete one. Raises NoVerifier.

    It stops at a try that passed, that was cut off or that the verifier could not judge, and when the budget has no
    room for another. A limit of tokens for one sample applies to the whole conversation.
    """
    tries: list[Candidate] = []
    start = search.root
    while len(tries) < spec.n:
        made = [candidate async for candidate in search.complete(start)]
        tries += made
        if not made or not made[0].is_complete:
            break
        reply = await search.verify(made[0])
        if made[0].node.passed is not False or len(tries) == spec.n:
            break
        turn = await search.say(made[0].node, f"{reply.feedback or _WRONG}\n{_AGAIN}")
        if turn is None:
            break
        start = turn
        search.begin_round()
    return sorted(tries, key=lambda made: (not made.node.passed, not made.is_complete, -made.node.start))
