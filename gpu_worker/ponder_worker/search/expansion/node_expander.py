"""The children of a tree's nodes: asked for, granted by the wall, grown, and handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ponder_worker.search.expansion.expansion import Expansion
from ponder_worker.search.expansion.scores import Scores
from ponder_worker.search.expansion.search_limits import Limits
from ponder_worker.search.expansion.speculation import Speculation
from ponder_worker.search.expansion.streams import GenerationOptions, Streams
from ponder_worker.search.expansion.token_budget import TokenBudget
from ponder_worker.search.port import End, Engine
from ponder_worker.search.tree.node import Node, NodeState
from ponder_worker.search.tree.search_tree import SearchTree
from ponder_worker.search.tree.text import text_of


class NodeExpander:
    """Of one tree. Those that a former attempt made are handed over again, half-grown ones grow on."""

    def __init__(
        self, tree: SearchTree, engine: Engine, limits: Limits, scores: Scores, speculation: Speculation
    ) -> None:
        self.wall = TokenBudget(limits.tokens)
        self.blocked: set[Expansion] = set()
        self.streams = Streams(tree, engine, speculation)
        self._tree = tree
        self._engine = engine
        self._limits = limits
        self._scores = scores
        self._speculation = speculation
        self._growths: dict[int, Expansion] = {}  # of each growing node
        self._cursors: dict[int, int] = {}
        self._restore()

    def generate(self, node: Node, n: int, manner: GenerationOptions, *, score: bool) -> Expansion:
        """n more; see `Search.generate`."""
        growth = Expansion(node, self.streams.length, self.blocked, self._cancel)
        for ordinal in self._next(node, n):
            child = self._tree.child(node, ordinal)
            if child is None:
                self._ask(growth, ordinal, manner, score)
            elif child.state is NodeState.GROWING:
                self._start(growth, child, manner, score)
            elif child.stop != "settled":
                self._hand_out(growth, child, score)
        self._speculation.leave(node)
        return growth

    async def force(self, node: Node, ids_of: Callable[[], list[int]]) -> Node | None:
        """One more child, of ids that nobody samples; None when the budget has no room for it."""
        (ordinal,) = self._next(node, 1)
        child = self._tree.child(node, ordinal)
        if child is not None or (node.index, ordinal) in self._tree.refused:
            return child
        ids = ids_of()
        if len(ids) >= self._cap(node):
            return None
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.wall.ask(len(ids), whole=True, answer=granted.set_result)
        if not await granted:
            self._refuse(node, ordinal)
            return None
        child = self._tree.add(node, ordinal, len(ids))
        self._tree.force(child, ids)
        self._tree.finish(child, "forced", self._text(child))
        self.wall.settle(len(ids), len(ids))
        return child

    def num_asked(self, node: Node) -> int:
        return self._cursors.get(node.index, 0)

    def prune(self, node: Node) -> None:
        self._speculation.leave(node)
        self._tree.prune(node)

    def text(self, node: Node) -> str:
        if node.text is None:
            node.text = self._text(node)
        return node.text

    def end(self, reason: str) -> None:
        """Nobody starts any more, who grows is cut off as it is."""
        if self._tree.ended is None:
            self._tree.end(reason)
        self.wall.close()
        self._speculation.close()
        for node in list(self._tree.growing):
            growth = self._growths.get(node.index)
            self._cut_off(node, reason)
            if growth is not None:
                growth.finish(node)

    def close(self) -> None:
        self._speculation.close()
        self.streams.close()

    def _restore(self) -> None:
        for node in self._tree.nodes[1:]:
            if node.state is NodeState.GROWING:
                self.wall.restore(node.cap)
            else:
                self.wall.count(len(node.ids))
        self.wall.refused = "budget" in self._tree.refused.values()
        if self._tree.ended is not None:
            self.end(self._tree.ended)

    def _next(self, node: Node, n: int) -> range:
        """The ordinals of n more."""
        first = self.num_asked(node)
        self._cursors[node.index] = first + n
        return range(first, first + n)

    def _cap(self, parent: Node) -> int:
        """The most tokens a child of this node may have."""
        return self._limits.left(parent.start + len(parent.ids) - len(self._tree.root.ids))

    def _ask(self, growth: Expansion, ordinal: int, manner: GenerationOptions, score: bool) -> None:
        parent = growth.parent
        cap = self._cap(parent)
        if not cap or (parent.index, ordinal) in self._tree.refused:
            return

        def answer(granted: int) -> None:
            if granted:
                self._start(growth, self._tree.add(parent, ordinal, granted), manner, score)
            else:
                self._refuse(parent, ordinal)
                growth.refuse(ordinal)

        growth.ask(ordinal)
        growth.wait(ordinal, self.wall.ask(cap, whole=self._limits.is_whole, answer=answer))

    def _refuse(self, parent: Node, ordinal: int) -> None:
        """Asked again by the next attempt, it would wait for half-grown nodes that only start after it."""
        if self._tree.ended is None:
            self._tree.refuse(parent, ordinal, "budget")

    def _start(self, growth: Expansion, node: Node, manner: GenerationOptions, score: bool) -> None:
        growth.grow(node)
        self._growths[node.index] = growth
        self.streams.start(node, manner, partial(self._finish, growth, manner, score))

    def _finish(self, growth: Expansion, manner: GenerationOptions, score: bool, node: Node, end: End) -> None:
        del self._growths[node.index]
        assert node.parent is not None
        reason = end.reason
        if reason == "length" and node.cap < self._cap(node.parent):
            reason = "budget"
        node.stop_chars = end.stop_chars
        self._tree.finish(node, reason, self._text(node), stop_chars=end.stop_chars)
        self.wall.settle(node.cap, len(node.ids))
        self._hand_out(growth, node, score)
        if reason == "separator" and score:
            self._speculate(node, manner)

    def _speculate(self, leaf: Node, manner: GenerationOptions) -> None:
        assert leaf.parent is not None
        cap = self._cap(leaf) if self.wall.tokens is None else min(self._cap(leaf), self.wall.tokens)
        if cap:
            order_of = partial(self.streams.order_below, leaf, manner, cap)
            self._speculation.consider(leaf, self.num_asked(leaf.parent), order_of)

    def _hand_out(self, growth: Expansion, node: Node, score: bool) -> None:
        if score and node.score is None and self.text(node):
            self._scores.ask(node)
        growth.finish(node)

    def _cancel(self, growth: Expansion) -> None:
        for ordinal, request in growth.asked.items():
            if request is not None:
                self.wall.withdraw(request)
            self._tree.refuse(growth.parent, ordinal, "settled")
        for node in growth.growing.values():
            self._cut_off(node, "settled")
        for _, _, node in growth.ready:
            self.prune(node)

    def _cut_off(self, node: Node, reason: str) -> None:
        self.streams.cut_off(node)
        self._growths.pop(node.index, None)
        self._tree.cancel(node, reason, self._text(node))
        self.wall.settle(node.cap, len(node.ids))

    def _text(self, node: Node) -> str:
        return text_of(node, self._tree, self._engine)
