"""Whole samples below one node, as candidates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ponder_worker.search.candidate import Candidate
from ponder_worker.search.expansion.expansion import Expansion
from ponder_worker.search.tree.node import Node


class Samples:
    """Async iterator in `Expansion`'s order; `cancel` gives up the rest in mid-token."""

    def __init__(self, growth: Expansion, candidate_of: Callable[[Node], Awaitable[Candidate]]) -> None:
        self._growth = growth
        self._candidate_of = candidate_of

    def __aiter__(self) -> Samples:
        return self

    async def __anext__(self) -> Candidate:
        return await self._candidate_of(await self._growth.__anext__())

    def cancel(self) -> None:
        self._growth.cancel()
