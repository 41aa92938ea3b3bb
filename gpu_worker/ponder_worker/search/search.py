"""The Search handle: what a strategy programs against. It batches, resumes, and keeps the budget for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from ponder_worker.search.answer import extract
from ponder_worker.search.budget import Wall
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.growth import Growth
from ponder_worker.search.node import Node, NodeState
from ponder_worker.search.port import End, Engine, Order, Stream
from ponder_worker.search.scores import Scores
from ponder_worker.search.tree import SearchTree


@dataclass(frozen=True, slots=True)
class Limits:
    """tokens: of the job in all; tokens_per_sample: of one path; room_tokens: what the context leaves to a path."""

    tokens: int | None
    tokens_per_sample: int | None
    room_tokens: int
    tail_tokens: int = 0


class Search:
    """One job's search. Everything that a strategy does through it is a function of the tree, never of time.

    Made on a tree of a former attempt it hands out the children that are there, goes on with half-grown ones, and asks
    for a score only where there is none.
    """

    def __init__(
        self,
        tree: SearchTree,
        engine: Engine,
        limits: Limits,
        *,
        num_choices: int = 1,
        answer_of: Callable[[str], str | None] = extract,
        scores_are_logs: bool = False,
    ) -> None:
        self.tree = tree
        self.root = tree.root
        self.num_choices = num_choices
        self.scores_are_logs = scores_are_logs
        self.wall = Wall(limits.tokens, tail_tokens=limits.tail_tokens)
        self._engine = engine
        self._limits = limits
        self._answer_of = answer_of
        self._streams: dict[int, Stream] = {}
        self._growths: dict[int, Growth] = {}  # of each growing node
        self.blocked: set[Growth] = set()
        """Have a child ready that a sibling's length holds back: each wants a `look` after a step."""
        self._cursors: dict[int, int] = {}
        self._scores = Scores(tree, engine, self.text)
        self._former = [len(node.ids) for node in tree.nodes]
        self._restore()

    def generate(self, node: Node, n: int = 1, *, separator: str | None = None, score: bool = False) -> Growth:
        """n more children: `async for child in …`, by (length in tokens, ordinal). Asking twice for 4 makes 8.

        Each ends where the model ends it, at its limit, or after the `separator`, which it keeps. Fewer come when the
        budget has no room. They stand in the line for it from now on, not from when they are awaited.
        score: their scores are asked for as soon as they have ended.
        """
        growth = Growth(self._length, self.blocked)
        first = self._cursors.get(node.index, 0)
        self._cursors[node.index] = first + n
        for ordinal in range(first, first + n):
            child = self.tree.child(node, ordinal)
            if child is None:
                self._ask(growth, node, ordinal, separator, score)
            elif child.state is NodeState.GROWING:
                self._start(growth, child, separator, score)
            else:
                self._hand_out(growth, child, score)
        return growth

    async def complete(self, node: Node, n: int = 1, *, score: bool = False) -> AsyncIterator[Candidate]:
        """n whole samples below a node as candidates, scored if asked for, in `generate`'s order."""
        async for leaf in self.generate(node, n, score=score):
            candidate = self.candidate(leaf)
            yield candidate.scored(await self.path_score(leaf)) if score else candidate

    async def score(self, node: Node) -> float:
        """The reward model's score of this step after all before it; asked once a node. Raises NoRewardModel."""
        return await self._scores.of(node)

    async def path_score(self, node: Node) -> float | None:
        """Of the whole path: the sum over its steps. A step without text claims nothing and is not scored.

        None for a path without any text: where scores are log-probabilities, no claim would be the best of claims.
        """
        scores = [await self.score(step) for step in node.path() if self.text(step)]
        return sum(scores) if scores else None

    def candidate(self, leaf: Node) -> Candidate:
        text = "".join(map(self.text, leaf.path()))
        return Candidate(leaf, text, self._answer_of(text), is_complete=leaf.stop == "stop")

    def prune(self, node: Node) -> None:
        self.tree.prune(node)

    def text(self, node: Node) -> str:
        """Of this step alone."""
        if node.text is None:
            node.text = self._text(node)
        return node.text

    def end(self, reason: str) -> None:
        """Comes to its end with what there is: nobody starts any more, who grows is cut off as it is."""
        if self.tree.ended is None:
            self.tree.end(reason)
        self.wall.close()
        for node in list(self.tree.growing):
            self.sync(node)
            stream = self._streams.pop(node.index, None)
            if stream is not None:
                self._engine.cancel(stream)
            self.tree.cancel(node, reason, self._text(node))
            self.wall.settle(node.cap, len(node.ids))
            growth = self._growths.pop(node.index, None)
            if growth is not None:
                growth.finish(node)

    def close(self) -> None:
        """Gives up everything that runs and writes nothing down."""
        for stream in self._streams.values():
            self._engine.cancel(stream)
        self._streams.clear()

    def sync(self, node: Node) -> None:
        """Moves what its stream has made so far into the tree."""
        stream = self._streams.get(node.index)
        if stream is None:
            return
        new = stream.tokens[node.start + len(node.ids) :]
        if new:
            self.tree.extend(node, new, stream.logprobs[len(stream.logprobs) - len(new) :])

    def sync_all(self) -> None:
        for node in self.tree.growing:
            self.sync(node)

    def _restore(self) -> None:
        for node in self.tree.nodes[1:]:
            if node.state is NodeState.GROWING:
                self.wall.restore(node.cap)
            else:
                self.wall.count(len(node.ids))
        self.wall.refused = bool(self.tree.refused)
        if self.tree.ended is not None:
            self.end(self.tree.ended)

    def _cap(self, parent: Node) -> int:
        """The most tokens a child of this node may have."""
        made = parent.start + len(parent.ids) - len(self.root.ids)
        limit = self._limits.room_tokens
        if self._limits.tokens_per_sample is not None:
            limit = min(limit, self._limits.tokens_per_sample)
        return max(0, limit - made)

    def _ask(self, growth: Growth, parent: Node, ordinal: int, separator: str | None, score: bool) -> None:
        cap = self._cap(parent)
        if not cap or (parent.index, ordinal) in self.tree.refused:
            return

        def answer(granted: int) -> None:
            if granted:
                self._start(growth, self.tree.add(parent, ordinal, granted), separator, score)
                return
            if self.tree.ended is None:
                # Asked again by the next attempt, it would wait for half-grown nodes that only start after it.
                self.tree.refuse(parent, ordinal)
            growth.refuse(ordinal)

        growth.ask(ordinal)
        limit = self._limits.tokens_per_sample
        self.wall.ask(cap, whole=limit is not None and limit <= self._limits.room_tokens, answer=answer)

    def _start(self, growth: Growth, node: Node, separator: str | None, score: bool) -> None:
        growth.grow(node)
        self._growths[node.index] = growth
        order = Order(self.tree.ids_to(node), node.start, node.cap, node.seed, separator, self._num_former(node))
        self._streams[node.index] = self._engine.generate(order, partial(self._finish, growth, node, score))

    def _finish(self, growth: Growth, node: Node, score: bool, end: End) -> None:
        self.sync(node)
        del self._streams[node.index], self._growths[node.index]
        assert node.parent is not None
        reason = end.reason
        if reason == "length" and node.cap < self._cap(node.parent):
            reason = "budget"
        node.stop_chars = end.stop_chars
        self.tree.finish(node, reason, self._text(node), stop_chars=end.stop_chars)
        self.wall.settle(node.cap, len(node.ids))
        self._hand_out(growth, node, score)

    def _hand_out(self, growth: Growth, node: Node, score: bool) -> None:
        if score and node.score is None and self.text(node):
            self._scores.ask(node)
        growth.finish(node)

    def _text(self, node: Node) -> str:
        """Its part of the path's text; a character that begins in one step and ends in the next counts to the next."""
        ids = self.tree.ids_to(node)[len(self.root.ids) :]
        text = self._engine.decode(ids)
        before = self._engine.decode(ids[: len(ids) - len(node.ids)]).rstrip("�") if len(ids) > len(node.ids) else ""
        text = text[len(before) :] if text.startswith(before) else self._engine.decode(node.ids)
        return text[: len(text) - node.stop_chars]

    def _num_former(self, node: Node) -> int:
        """Tokens at the front of its path that this attempt did not make."""
        made = sum(self._former[step.index] for step in node.path() if step.index < len(self._former))
        return len(self.root.ids) + made

    def _length(self, node: Node) -> int:
        stream = self._streams.get(node.index)
        return len(node.ids) if stream is None else len(stream.tokens) - node.start
