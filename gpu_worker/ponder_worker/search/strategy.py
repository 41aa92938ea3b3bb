"""Which function a spec names."""

from __future__ import annotations

from ponder.domain.strategy import Adaptive, AnyStrategy, BeamSearch, BestOfN, Direct, SelfConsistency
from ponder_worker.search.adaptive import adaptive
from ponder_worker.search.beam_search import beam_search
from ponder_worker.search.best_of_n import best_of_n
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.direct import direct
from ponder_worker.search.search import Search
from ponder_worker.search.self_consistency import self_consistency


async def run(search: Search, spec: AnyStrategy) -> list[Candidate]:
    """All candidates that the strategy made, the chosen one first. A function of the tree and of nothing else."""
    match spec:
        case Direct():
            return await direct(search, spec)
        case SelfConsistency():
            return await self_consistency(search, spec)
        case BestOfN():
            return await best_of_n(search, spec)
        case BeamSearch():
            return await beam_search(search, spec)
        case Adaptive():
            return await adaptive(search, spec)
        case _:
            raise NotImplementedError(spec.name)
