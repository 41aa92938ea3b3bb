"""Expands the nodes of a tree: requests children, reserves their tokens, grows them, and hands them over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ponder.domain.strategy import Aggregate
from ponder_worker.search.engine_port import EnginePort, StreamEnd
from ponder_worker.search.expansion.expansion import Expansion
from ponder_worker.search.expansion.scores import Scores
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.expansion.speculation import Speculation
from ponder_worker.search.expansion.streams import GenerationOptions, Streams
from ponder_worker.search.expansion.token_budget import TokenBudget
from ponder_worker.search.tree.node import Node, NodeState
from ponder_worker.search.tree.search_tree import SearchTree


@dataclass(frozen=True, slots=True)
class _Growing:
    expansion: Expansion
    options: GenerationOptions
    wants_score: bool


class NodeExpander:
    """Makes the children of one tree's nodes. Children of a former attempt are handed over again or go on growing."""

    def __init__(
        self, tree: SearchTree, engine: EnginePort, limits: SearchLimits, scores: Scores, aggregate: Aggregate
    ) -> None:
        self.budget = TokenBudget(limits.tokens)
        self.blocked: set[Expansion] = set()
        """Expansions with a finished child that a growing sibling holds back, which `look` wakes."""
        self._speculation = Speculation(tree, engine, aggregate)
        self.streams = Streams(tree, engine, self._speculation.take, self._finish, self._give_up)
        self._tree = tree
        self._engine = engine
        self._limits = limits
        self._scores = scores
        self._growing: dict[int, _Growing] = {}
        self._num_requested: dict[int, int] = {}
        self._restore()

    def generate(self, node: Node, n: int, options: GenerationOptions, *, score: bool = False) -> Expansion:
        """Requests n more children: `async for child in …`, by (length in tokens, ordinal). Two calls for 4 make 8.

        There are fewer if the budget has no room. They queue for it from this call on, not from when they are awaited.
        score: requests their scores as soon as they have ended.
        """
        expansion = Expansion(node, self.streams.length, self.blocked, self._cancel)
        for ordinal in self._next_ordinals(node, n):
            child = self._tree.child(node, ordinal)
            if child is None:
                self._reserve(expansion, ordinal, options, score)
            elif child.state is NodeState.GROWING:
                self._start(child, _Growing(expansion, options, score))
            elif child.stop != "settled":
                self._hand_over(expansion, child, score)
        self._speculation.leave(node)
        return expansion

    async def force(self, node: Node, ids: list[int], *, stop: str = "forced") -> Node | None:
        """Adds one more child, of ids that are not sampled; None if the budget has no room for it.

        stop: "forced" for the user's turn, and "inserted" for a part of the model's.
        """
        (ordinal,) = self._next_ordinals(node, 1)
        child = self._tree.child(node, ordinal)
        if child is not None or (node.index, ordinal) in self._tree.refused:
            return child
        if len(ids) >= self.room(node):
            return None
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.budget.reserve(len(ids), is_whole=True, answer=granted.set_result)
        if not await granted:
            self._refuse(node, ordinal)
            return None
        child = self._tree.add(node, ordinal, len(ids))
        self._tree.force(child, ids)
        self._tree.finish(child, stop, self._spell(child))
        self.budget.settle(len(ids), len(ids))
        return child

    def ask(self, ids: list[int]) -> Node | None:
        """Adds one more child of the root, a prompt of its own; None if the search was told to end before."""
        root = self._tree.root
        (ordinal,) = self._next_ordinals(root, 1)
        child = self._tree.child(root, ordinal)
        return self._tree.add_prompt(ordinal, ids) if child is None and self._tree.ended is None else child

    def look(self) -> None:
        """Stops samples whose confidence is too low, and wakes what can go on. Must be called after each step."""
        self.streams.look()
        for expansion in list(self.blocked):
            expansion.wake()

    def room(self, node: Node) -> int:
        """Returns how many tokens a path may still have below this node."""
        length, prompt = node.start + len(node.ids), node.prompt
        if prompt.is_prompt:
            return max(0, self._engine.context_length - length)
        return self._limits.left(length - len(prompt.ids))

    @property
    def has_refused_samples(self) -> bool:
        """Whether the budget had no room for a part of the search; a judge's reply is none."""
        refused = self._tree.refused.items()
        return any(why == "budget" and not self._tree.nodes[parent].is_prompt for (parent, _), why in refused)

    def num_requested(self, node: Node) -> int:
        """Returns how many children of a node were requested so far: the ordinal of the next one."""
        return self._num_requested.get(node.index, 0)

    def prune(self, node: Node) -> None:
        self._speculation.leave(node)
        self._tree.prune(node)

    def end(self, reason: str) -> None:
        """Starts nothing any more, and cuts off what grows."""
        if self._tree.ended is None:
            self._tree.end(reason)
        self.budget.close()
        self._speculation.close()
        for node in list(self._tree.growing):
            growing = self._growing.get(node.index)
            self._cut_off(node, reason)
            if growing is not None:
                growing.expansion.finish(node)

    def abandon(self, reason: str) -> None:
        """Cuts off what grows, for a strategy that is told nothing, because it goes on no more."""
        self._speculation.close()
        for node in list(self._tree.growing):
            self.streams.cut_off(node)
            self._tree.cancel(node, reason, self._spell(node))

    def close(self) -> None:
        """Stops everything that runs and records nothing."""
        self._speculation.close()
        self.streams.close()

    def _restore(self) -> None:
        for node in self._tree.nodes[1:]:
            if node.state is NodeState.GROWING:
                self.budget.restore(node.cap)
            elif node.is_sampled:
                self.budget.count(len(node.ids))
        if self._tree.ended is not None:
            self.end(self._tree.ended)

    def _next_ordinals(self, node: Node, n: int) -> range:
        first = self.num_requested(node)
        self._num_requested[node.index] = first + n
        return range(first, first + n)

    def _cap(self, parent: Node, options: GenerationOptions) -> int:
        """Returns the most tokens that a child of this node may have."""
        room = self.room(parent)
        return room if options.max_tokens is None else min(room, options.max_tokens)

    def _reserve(self, expansion: Expansion, ordinal: int, options: GenerationOptions, score: bool) -> None:
        parent = expansion.parent
        cap = self._cap(parent, options)
        if not cap or (parent.index, ordinal) in self._tree.refused:
            return

        def answer(granted: int) -> None:
            if granted:
                self._start(self._tree.add(parent, ordinal, granted), _Growing(expansion, options, score))
            else:
                self._refuse(parent, ordinal)
                expansion.refuse(ordinal)

        expansion.wait(ordinal)
        is_whole = self._limits.is_whole or options.judges
        reservation = self.budget.reserve(cap, is_whole=is_whole, answer=answer)
        if ordinal in expansion.waiting:
            expansion.wait(ordinal, reservation)

    def _refuse(self, parent: Node, ordinal: int) -> None:
        # Without a record, the next attempt would make it wait for half-grown nodes that only start after it.
        if self._tree.ended is None:
            self._tree.refuse(parent, ordinal, "budget")

    def _start(self, node: Node, growing: _Growing) -> None:
        growing.expansion.grow(node)
        self._growing[node.index] = growing
        self.streams.start(node, growing.options)

    def _finish(self, node: Node, end: StreamEnd) -> None:
        growing = self._growing.pop(node.index)
        assert node.parent is not None
        reason = end.reason
        if reason == "length" and node.cap < self._cap(node.parent, growing.options):
            reason = "budget"
        self._tree.finish(node, reason, self._spell(node), stop_chars=end.stop_chars)
        self.budget.settle(node.cap, len(node.ids))
        self._hand_over(growing.expansion, node, growing.wants_score)
        if reason == "separator" and growing.wants_score:
            self._speculate(node, growing.options)

    def _speculate(self, leaf: Node, options: GenerationOptions) -> None:
        assert leaf.parent is not None
        cap = self.room(leaf) if self.budget.tokens is None else min(self.room(leaf), self.budget.tokens)
        if cap:
            request = self.streams.request_below(leaf, options, cap)
            self._speculation.consider(leaf, request, self.num_requested(leaf.parent))

    def _give_up(self, node: Node) -> None:
        expansion = self._growing[node.index].expansion
        self._cut_off(node, "confidence")
        expansion.finish(node)

    def _hand_over(self, expansion: Expansion, node: Node, score: bool) -> None:
        """A node that was stopped for its low confidence is not scored."""
        score = score and node.stop != "confidence"
        if score and node.score is None and self._tree.text_of(node, self._engine.decode):
            self._scores.request(node)
        expansion.finish(node)

    def _cancel(self, expansion: Expansion) -> None:
        for ordinal, reservation in expansion.waiting.items():
            if reservation is not None:
                self.budget.withdraw(reservation)
            self._tree.refuse(expansion.parent, ordinal, "settled")
        for node in expansion.growing.values():
            self._cut_off(node, "settled")
        for _, _, node in expansion.ready:
            self.prune(node)

    def _cut_off(self, node: Node, reason: str) -> None:
        self.streams.cut_off(node)
        self._growing.pop(node.index, None)
        self._tree.cancel(node, reason, self._spell(node))
        self.budget.settle(node.cap, len(node.ids))

    def _spell(self, node: Node) -> str:
        return self._tree.spell(node, self._engine.decode)
