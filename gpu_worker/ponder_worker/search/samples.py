"""Whole samples below one node, as candidates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ponder_worker.search.candidate import Candidate
from ponder_worker.search.growth import Growth
from ponder_worker.search.node import Node


class Samples:
    """Async iterator in `Growth`'s order; `cancel` gives up the rest in mid-token."""

    def __init__(self, growth: Growth, candidate_of: Callable[[Node], Awaitable[Candidate]]) -> None:
        self._growth = growth
        self._candidate_of = candidate_of

    def __aiter__(self) -> Samples:
        return self

    async def __anext__(self) -> Candidate:
        return await self._candidate_of(await self._growth.__anext__())

    def cancel(self) -> None:
        self._growth.cancel()
