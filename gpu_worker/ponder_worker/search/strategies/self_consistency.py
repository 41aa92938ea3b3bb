"""Majority vote over the canonical answers of n samples: Wang et al. 2022, https://arxiv.org/abs/2203.11171."""

from __future__ import annotations

from ponder.domain.strategy import SelfConsistency
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.samples import sample
from ponder_worker.search.tree.candidate import Candidate


async def self_consistency(search: Search, spec: SelfConsistency) -> list[Candidate]:
    return await sample(search, spec, select="majority")
