"""The children that one `generate` call makes, in an order that does not depend on time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from ponder_worker.search.expansion.token_budget import Reservation
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node


class Expansion:
    """Async iterator over finished children, by (length in tokens, ordinal).

    A child is yielded once no sibling can come before it: all siblings that still grow are already as long.
    blocked: a set that the expansion enters while it has a finished child that only a growing sibling holds back.
    """

    def __init__(
        self,
        parent: Node,
        length: Callable[[Node], int],
        blocked: set[Expansion],
        on_cancel: Callable[[Expansion], None],
    ) -> None:
        self.parent = parent
        self.waiting: dict[int, Reservation | None] = {}
        """Children by ordinal that wait for the token budget."""
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
            self.wake()
            await self._wakeup
        if not self.ready:
            raise StopAsyncIteration
        return heapq.heappop(self.ready)[2]

    async def all(self) -> list[Node]:
        return [node async for node in self]

    def cancel(self) -> None:
        """Gives up the rest: growing children are cut off, waiting ones never begin, and finished ones are pruned.

        How far the growing ones have come depends on time, and their tokens are spent. This is the only way in which
        time can influence what the budget grants later, so it is recorded in the tree before it is acted on.
        """
        self._on_cancel(self)
        self.waiting.clear()
        self.growing.clear()
        self.ready.clear()
        self.wake()

    def wait(self, ordinal: int, reservation: Reservation | None = None) -> None:
        self.waiting[ordinal] = reservation

    def refuse(self, ordinal: int) -> None:
        self.waiting.pop(ordinal, None)
        self.wake()

    def grow(self, node: Node) -> None:
        self.waiting.pop(node.ordinal, None)
        self.growing[node.ordinal] = node

    def finish(self, node: Node) -> None:
        self.growing.pop(node.ordinal, None)
        heapq.heappush(self.ready, (len(node.ids), node.ordinal, node))
        self.wake()

    def wake(self) -> None:
        """Wakes the strategy if it can go on. Must be called after each step while the expansion is blocked."""
        if self._wakeup is None or self._wakeup.done():
            self._blocked.discard(self)
        elif self._can_go_on():
            self._blocked.discard(self)
            self._wakeup.set_result(None)
        elif self.ready:
            self._blocked.add(self)

    def _can_go_on(self) -> bool:
        if not self.ready:
            return not (self.waiting or self.growing)
        if self.waiting:
            return False
        length, ordinal, _ = self.ready[0]
        # A sibling of k tokens that still grows will have at least k + 1.
        return all((length, ordinal) < (self._length(node) + 1, node.ordinal) for node in self.growing.values())


class Samples:
    """Async iterator over an expansion's children as candidates."""

    def __init__(self, expansion: Expansion, candidate_of: Callable[[Node], Awaitable[Candidate]]) -> None:
        self._expansion = expansion
        self._candidate_of = candidate_of

    def __aiter__(self) -> Samples:
        return self

    async def __anext__(self) -> Candidate:
        return await self._candidate_of(await self._expansion.__anext__())

    def cancel(self) -> None:
        """Cuts off the samples that are not finished yet."""
        self._expansion.cancel()
