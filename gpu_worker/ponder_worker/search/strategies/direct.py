"""One sample, or as many as choices are wanted: what every other strategy is compared with."""

from __future__ import annotations

from collections.abc import Iterable

from ponder.domain.strategy import Direct
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search


async def direct(search: Search, spec: Direct) -> list[Candidate]:
    return in_order([sample async for sample in search.complete(search.root, search.num_choices)])


def in_order(samples: Iterable[Candidate]) -> list[Candidate]:
    """As they were asked for, whole ones first."""
    return sorted(samples, key=lambda candidate: (not candidate.is_complete, candidate.node.ordinal))
