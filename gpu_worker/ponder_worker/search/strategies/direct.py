"""One sample, or one for each choice: the baseline of all other strategies."""

from __future__ import annotations

from collections.abc import Iterable

from ponder.domain.strategy import Direct
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate


async def direct(search: Search, spec: Direct) -> list[Candidate]:
    return in_order([sample async for sample in search.complete(search.root, search.num_choices)])


def in_order(samples: Iterable[Candidate]) -> list[Candidate]:
    """Sorts samples in the order of their requests, complete ones first."""
    return sorted(samples, key=lambda candidate: (not candidate.is_complete, candidate.node.ordinal))
