"""Further rounds of a strategy whose choice failed its verifier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ponder_worker.answers.equality import canonical
from ponder_worker.search.ranking import Select, rank
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate


async def repeat(
    search: Search, play: Callable[[], Awaitable[list[Candidate]]], max_rounds: int, *, by: Select
) -> list[Candidate]:
    """Plays rounds under one root until a round's choice passes or cannot be judged, or the budget has no room.

    The candidates of all rounds are ranked together: those that passed first, those whose answer is known to be wrong
    last. The choice of the last round is not verified, because no further round depends on it.
    """
    search.begin_round()
    ranked = made = await play()
    for _ in range(1, max_rounds):
        if not made:
            break
        await search.verify(made[0])
        if made[0].node.passed is not False:
            break
        search.begin_round()
        made = await play()
        ranked = rank([*ranked, *made], by=by)
    return ranked if max_rounds == 1 else _by_verdict(ranked)


def _by_verdict(ranked: Sequence[Candidate]) -> list[Candidate]:
    wrong = {_key(candidate) for candidate in ranked if candidate.node.passed is False}
    return sorted(
        ranked,
        key=lambda candidate: (not candidate.node.passed, not candidate.is_complete, _key(candidate) in wrong),
    )


def _key(candidate: Candidate) -> str | None:
    return None if candidate.answer is None else canonical(candidate.answer)
