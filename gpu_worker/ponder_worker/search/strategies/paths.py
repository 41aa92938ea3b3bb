"""Paths that grow in rounds of steps: what the searches over steps share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ponder.domain.strategy import StepSearch
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node


async def grow(
    search: Search, spec: StepSearch, shares: Sequence[tuple[Node, int]], *, is_last: bool
) -> list[list[Candidate]]:
    """Continues each (path, number) by so many single steps. Returns them scored, one list for each path, by ordinal.

    There are fewer if the budget has no room. In the last round the separator does not end a step.
    """
    options = replace(search.options, separator=None if is_last else spec.separator)
    expansions = [search.expander.generate(path, num, options, score=True) for path, num in shares]
    grown = [sorted(await expansion.all(), key=lambda step: step.ordinal) for expansion in expansions]
    return [[await scored(search, step, spec) for step in steps] for steps in grown]


async def scored(search: Search, path: Node, spec: StepSearch) -> Candidate:
    return search.candidate(path).scored(await search.path_score(path, spec.aggregate))


def goes_on(path: Candidate) -> bool:
    """Whether neither the model nor a limit has ended the path."""
    return path.node.stop == "separator"
