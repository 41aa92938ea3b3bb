"""Which function a spec names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ponder.domain.strategy import AnyStrategy
from ponder_worker.search.adaptive import adaptive
from ponder_worker.search.beam_search import beam_search
from ponder_worker.search.best_of_n import best_of_n
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.direct import direct
from ponder_worker.search.dvts import dvts
from ponder_worker.search.mcts import mcts
from ponder_worker.search.particle_filter import particle_filter
from ponder_worker.search.rebase import rebase
from ponder_worker.search.search import Search
from ponder_worker.search.self_consistency import self_consistency

_STRATEGIES: dict[str, Callable[[Search, Any], Awaitable[list[Candidate]]]] = {
    "direct": direct,
    "self_consistency": self_consistency,
    "best_of_n": best_of_n,
    "beam_search": beam_search,
    "dvts": dvts,
    "rebase": rebase,
    "mcts": mcts,
    "particle_filter": particle_filter,
    "adaptive": adaptive,
}


async def run(search: Search, spec: AnyStrategy) -> list[Candidate]:
    """All candidates that the strategy made, the chosen one first. A function of the tree and of nothing else."""
    return await _STRATEGIES[spec.name](search, spec)
