"""The children of one `generate` call, in an order that no clock decides."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from ponder_worker.search.expansion.token_budget import Request
from ponder_worker.search.tree.node import Node


class Expansion:
    """Async iterator over finished children by (length in tokens, ordinal).

    A child is handed out when no sibling can come before it any more: siblings that still grow are already as long.
    """

    def __init__(
        self,
        parent: Node,
        length: Callable[[Node], int],
        blocked: set[Expansion],
        on_cancel: Callable[[Expansion], None],
    ) -> None:
        """blocked: where it enters itself while only the length of a growing sibling holds a ready child back."""
        self.parent = parent
        self.asked: dict[int, Request | None] = {}
        """Ordinals that wait for the budget."""
        self.growing: dict[int, Node] = {}
        self.ready: list[tuple[int, int, Node]] = []
        self._length = length
        self._blocked = blocked
        self._on_cancel = on_cancel
        self._wakeup: asyncio.Future[None] | None = None

    def __aiter__(self) -> Expansion:
        return self

    async def __anext__(self) -> Node:
        while not self._can_go_on():
            self._wakeup = asyncio.get_running_loop().create_future()
            self.look()
            await self._wakeup
        if not self.ready:
            raise StopAsyncIteration
        return heapq.heappop(self.ready)[2]

    async def all(self) -> list[Node]:
        return [node async for node in self]

    def cancel(self) -> None:
        """The rest is not wanted: who grows is cut off in mid-token, who waits never begins, who is ready is pruned.

        How far those have come that are cut off is the clock's, and what they used is spent: the one thing by which
        time may decide what the budget grants later. It stands in the tree before it is acted on.
        """
        self._on_cancel(self)
        self.asked.clear()
        self.growing.clear()
        self.ready.clear()
        self.look()

    def ask(self, ordinal: int) -> None:
        self.asked[ordinal] = None

    def wait(self, ordinal: int, request: Request) -> None:
        """Asked, it was not answered at once."""
        if ordinal in self.asked:
            self.asked[ordinal] = request

    def refuse(self, ordinal: int) -> None:
        self.asked.pop(ordinal, None)
        self.look()

    def grow(self, node: Node) -> None:
        self.asked.pop(node.ordinal, None)
        self.growing[node.ordinal] = node

    def finish(self, node: Node) -> None:
        self.growing.pop(node.ordinal, None)
        heapq.heappush(self.ready, (len(node.ids), node.ordinal, node))
        self.look()

    def look(self) -> None:
        """Wakes the strategy if it can go on. To be called again after each step while it is among the blocked."""
        if self._wakeup is None or self._wakeup.done():
            self._blocked.discard(self)
        elif self._can_go_on():
            self._blocked.discard(self)
            self._wakeup.set_result(None)
        elif self.ready:
            self._blocked.add(self)

    def _can_go_on(self) -> bool:
        if not self.ready:
            return not (self.asked or self.growing)
        if self.asked:
            return False
        length, ordinal, _ = self.ready[0]
        # A sibling that has k tokens and goes on will have k + 1 at least.
        return all((length, ordinal) < (self._length(node) + 1, node.ordinal) for node in self.growing.values())
