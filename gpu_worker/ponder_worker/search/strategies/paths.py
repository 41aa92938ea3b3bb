"""Paths that grow by rounds of steps: what the searches over steps have in common."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.domain.strategy import StepSearch
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.tree.node import Node


async def grow(
    search: Search, spec: StepSearch, shares: Sequence[tuple[Node, int]], *, is_last: bool
) -> list[list[Candidate]]:
    """So many continuations of each path by one step, scored; a list a path, by ordinal.

    Fewer come when the budget has no room. In the last round the separator does not stop them.
    """
    separator = None if is_last else spec.separator
    growths = [search.generate(path, num, separator=separator, score=True) for path, num in shares]
    grown = [sorted(await growth.all(), key=lambda step: step.ordinal) for growth in growths]
    return [[await scored(search, step, spec) for step in steps] for steps in grown]


async def scored(search: Search, path: Node, spec: StepSearch) -> Candidate:
    return search.candidate(path).scored(await search.path_score(path, spec.aggregate))


def goes_on(path: Candidate) -> bool:
    """Neither the model nor a limit has ended it."""
    return path.node.stop == "separator"
