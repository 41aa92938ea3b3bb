"""Which function a spec names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ponder.domain.strategy import Adaptive, AnyStrategy, BestOfN, SelfConsistency
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection.ranking import Select
from ponder_worker.search.strategies.adaptive import adaptive
from ponder_worker.search.strategies.beam_search import beam_search
from ponder_worker.search.strategies.best_of_n import best_of_n
from ponder_worker.search.strategies.budget_forcing import budget_forcing
from ponder_worker.search.strategies.direct import direct
from ponder_worker.search.strategies.dvts import dvts
from ponder_worker.search.strategies.mcts import mcts
from ponder_worker.search.strategies.particle_filter import particle_filter
from ponder_worker.search.strategies.rebase import rebase
from ponder_worker.search.strategies.refine import refine
from ponder_worker.search.strategies.rounds import repeat
from ponder_worker.search.strategies.self_consistency import self_consistency

_STRATEGIES: dict[str, Callable[[Search, Any], Awaitable[list[Candidate]]]] = {
    "direct": direct,
    "self_consistency": self_consistency,
    "best_of_n": best_of_n,
    "beam_search": beam_search,
    "dvts": dvts,
    "rebase": rebase,
    "mcts": mcts,
    "particle_filter": particle_filter,
    "refine": refine,
    "budget_forcing": budget_forcing,
    "adaptive": adaptive,
}


async def run(search: Search, spec: AnyStrategy, max_rounds: int = 1) -> list[Candidate]:
    """All candidates that the strategy made, the chosen one first. A function of the tree and of nothing else.

    max_rounds: how often it may begin anew when its choice fails the job's verifier. Raises NoVerifier.
    """
    return await repeat(search, partial(_STRATEGIES[spec.name], search, spec), max_rounds, by=_select(spec))


def _select(spec: AnyStrategy) -> Select:
    """How it chooses; candidates without a score keep their order under `best`."""
    match spec:
        case SelfConsistency():
            return "majority"
        case BestOfN():
            return spec.select
        case Adaptive():
            return "weighted"
        case _:
            return "best"
