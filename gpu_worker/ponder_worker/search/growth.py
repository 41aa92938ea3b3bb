"""The children of one `generate` call, in an order that no clock decides."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from ponder_worker.search.node import Node


class Growth:
    """Async iterator over finished children by (length in tokens, ordinal).

    A child is handed out when no sibling can come before it any more: siblings that still grow are already as long.
    """

    def __init__(self, length: Callable[[Node], int], blocked: set[Growth]) -> None:
        """blocked: where it enters itself while only the length of a growing sibling holds a ready child back."""
        self._length = length
        self._blocked = blocked
        self._asked: set[int] = set()
        self._growing: dict[int, Node] = {}
        self._ready: list[tuple[int, int, Node]] = []
        self._wakeup: asyncio.Future[None] | None = None

    def __aiter__(self) -> Growth:
        return self

    async def __anext__(self) -> Node:
        while not self._can_go_on():
            self._wakeup = asyncio.get_running_loop().create_future()
            self.look()
            await self._wakeup
        if not self._ready:
            raise StopAsyncIteration
        return heapq.heappop(self._ready)[2]

    async def all(self) -> list[Node]:
        return [node async for node in self]

    def ask(self, ordinal: int) -> None:
        self._asked.add(ordinal)

    def refuse(self, ordinal: int) -> None:
        self._asked.discard(ordinal)
        self.look()

    def grow(self, node: Node) -> None:
        self._asked.discard(node.ordinal)
        self._growing[node.ordinal] = node

    def finish(self, node: Node) -> None:
        self._growing.pop(node.ordinal, None)
        heapq.heappush(self._ready, (len(node.ids), node.ordinal, node))
        self.look()

    def look(self) -> None:
        """Wakes the strategy if it can go on. To be called again after each step while it is among the blocked."""
        if self._wakeup is None or self._wakeup.done():
            self._blocked.discard(self)
        elif self._can_go_on():
            self._blocked.discard(self)
            self._wakeup.set_result(None)
        elif self._ready:
            self._blocked.add(self)

    def _can_go_on(self) -> bool:
        if not self._ready:
            return not (self._asked or self._growing)
        if self._asked:
            return False
        length, ordinal, _ = self._ready[0]
        # A sibling that has k tokens and goes on will have k + 1 at least.
        return all((length, ordinal) < (self._length(node) + 1, node.ordinal) for node in self._growing.values())
