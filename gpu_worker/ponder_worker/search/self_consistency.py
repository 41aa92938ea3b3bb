"""Majority over the canonical answers of n samples: Wang et al. 2022, https://arxiv.org/abs/2203.11171."""

from __future__ import annotations

from ponder.domain.strategy import SelfConsistency
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection import rank


async def self_consistency(search: Search, spec: SelfConsistency) -> list[Candidate]:
    candidates = [candidate async for candidate in search.complete(search.root, spec.n)]
    return rank(candidates, by="majority")
