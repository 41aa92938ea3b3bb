"""n samples, the reward model's choice: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168."""

from __future__ import annotations

from ponder.domain.strategy import BestOfN
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection import rank


async def best_of_n(search: Search, spec: BestOfN) -> list[Candidate]:
    scored = spec.select != "majority"
    candidates = [candidate async for candidate in search.complete(search.root, spec.n, score=scored)]
    return rank(candidates, by=spec.select, scores_are_logs=search.scores_are_logs)
