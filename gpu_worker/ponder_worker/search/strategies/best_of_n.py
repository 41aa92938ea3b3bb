"""Best of n samples by the reward model: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168."""

from __future__ import annotations

from ponder.domain.strategy import BestOfN
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.samples import sample
from ponder_worker.search.tree.candidate import Candidate


async def best_of_n(search: Search, spec: BestOfN) -> list[Candidate]:
    return await sample(search, spec, select=spec.select)
