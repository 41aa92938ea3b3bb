"""The Search handle: what a strategy programs against. It batches, resumes, and keeps the budget for it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ponder.domain.strategy import Aggregate
from ponder_worker.search import seed
from ponder_worker.search.answer import extract
from ponder_worker.search.budget import Wall
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.growth import Growth
from ponder_worker.search.node import Node, NodeState
from ponder_worker.search.port import End, Engine, Verdict
from ponder_worker.search.samples import Samples
from ponder_worker.search.scores import Scores, aggregate
from ponder_worker.search.speculation import Speculation
from ponder_worker.search.streams import Manner, Streams, text_of
from ponder_worker.search.tree import SearchTree

_DRAWS = 1 << 32
"""Ordinals from here on are no children's: what a strategy draws at random has seeds of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """tokens: of the job in all; tokens_per_sample: of one path; room_tokens: what the context leaves to a path.

    thinking_tokens: of one sample's thought, which is closed then.
    """

    tokens: int | None
    tokens_per_sample: int | None
    room_tokens: int
    thinking_tokens: int | None = None


class Search:
    """One job's search. Everything that a strategy does through it is a function of the tree, never of time.

    Made on a tree of a former attempt it hands out the children that are there, goes on with half-grown ones, and asks
    for a score or a verdict only where there is none.
    """

    def __init__(
        self,
        tree: SearchTree,
        engine: Engine,
        limits: Limits,
        *,
        num_choices: int = 1,
        answer_of: Callable[[str], str | None] = extract,
        aggregate: Aggregate = "product",
        learned: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """aggregate: how a path is scored where its strategy does not say. learned: see `learned`."""
        self.tree = tree
        self.root = tree.root
        self.num_choices = num_choices
        self.wall = Wall(limits.tokens)
        self.manner = Manner(thought=engine.thought, thinking_tokens=limits.thinking_tokens)
        """How samples grow unless `generate` is told otherwise."""
        self.blocked: set[Growth] = set()
        """Have a child ready that a sibling's length holds back: each wants a `look` after a step."""
        self._engine = engine
        self._limits = limits
        self._answer_of = answer_of
        self._aggregate = aggregate
        self._learned = learned
        self.lessons: dict[str, float] = {}
        """What the batch's other jobs shall know when this one has ended: added to the sums that `learned` gives."""
        self._speculation = Speculation(tree, engine, aggregate)
        self._streams = Streams(tree, engine, self._speculation)
        self._growths: dict[int, Growth] = {}  # of each growing node
        self._cursors: dict[int, int] = {}
        self._scores = Scores(tree, engine, self.text)
        self._restore()

    def generate(
        self, node: Node, n: int = 1, *, separator: str | None = None, score: bool = False, manner: Manner | None = None
    ) -> Growth:
        """n more children: `async for child in …`, by (length in tokens, ordinal). Asking twice for 4 makes 8.

        Each ends where the model ends it, at its limit, or after the `separator`, which it keeps. Fewer come when the
        budget has no room. They stand in the line for it from now on, not from when they are awaited.
        score: their scores are asked for as soon as they have ended.
        """
        growth = Growth(node, self._streams.length, self.blocked, self._cancel)
        manner = manner or replace(self.manner, separator=separator)
        self._speculation.go_on(node)
        first = self._cursors.get(node.index, 0)
        self._cursors[node.index] = first + n
        for ordinal in range(first, first + n):
            child = self.tree.child(node, ordinal)
            if child is None:
                self._ask(growth, ordinal, manner, score)
            elif child.state is NodeState.GROWING:
                self._start(growth, child, manner, score)
            elif child.stop != "settled":
                self._hand_out(growth, child, score)
        return growth

    def complete(
        self,
        node: Node,
        n: int = 1,
        *,
        score: bool = False,
        aggregate: Aggregate | None = None,
        manner: Manner | None = None,
    ) -> Samples:
        """n whole samples below a node as candidates, scored if asked for, in `generate`'s order."""

        async def candidate_of(leaf: Node) -> Candidate:
            candidate = self.candidate(leaf)
            return candidate.scored(await self.path_score(leaf, aggregate)) if score else candidate

        return Samples(self.generate(node, n, score=score, manner=manner), candidate_of)

    async def score(self, node: Node) -> float:
        """The reward model's score of this step after all before it; asked once a node. Raises NoRewardModel."""
        return await self._scores.of(node)

    async def path_score(self, node: Node, by: Aggregate | None = None) -> float | None:
        """Of the whole path, its steps' scores taken together. A step without text claims nothing and is not scored.

        None for a path without any text: where scores are log-probabilities, no claim would be the best of claims.
        """
        scores = [await self.score(step) for step in node.path() if step.stop != "forced" and self.text(step)]
        return aggregate(scores, by or self._aggregate) if scores else None

    async def verify(self, candidate: Candidate) -> Verdict:
        """What the job's verifier says; asked once a leaf. Raises NoVerifier."""
        leaf = candidate.node
        if leaf.passed is None:
            said: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            self._engine.verify(candidate.text, candidate.answer, said.set_result)
            verdict = await said
            self.tree.set_verdict(leaf, verdict.passed, verdict.feedback)
        return Verdict(bool(leaf.passed), leaf.feedback or "")

    async def say(self, node: Node, text: str) -> Node | None:
        """The user's answer to the model's turn that ends here, as a child; None when the budget has no room for it."""
        ordinal = self._cursors.get(node.index, 0)
        self._cursors[node.index] = ordinal + 1
        child = self.tree.child(node, ordinal)
        ids = self._engine.turn(text) if child is None else []
        if node.ids and ids[:1] == node.ids[-1:]:  # the model has ended its turn itself
            ids = ids[1:]
        if child is None and len(ids) < self._cap(node):
            granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self.wall.ask(len(ids), whole=True, answer=granted.set_result)
            if await granted:
                child = self.tree.add(node, ordinal, len(ids))
                self.tree.force(child, ids)
                self.tree.finish(child, "forced", self._text(child))
                self.wall.settle(len(ids), len(ids))
        return child

    def candidate(self, leaf: Node) -> Candidate:
        """The text is of the model's last turn; the answer is not looked for in a thought that is closed."""
        path = leaf.path()
        turns = [index for index, step in enumerate(path) if step.stop == "forced"]
        text = "".join(map(self.text, path[turns[-1] + 1 :] if turns else path))
        thought = self.manner.thought
        said = text.rpartition(thought.close)[2] if thought is not None else text
        return Candidate(leaf, text, self._answer_of(said), is_complete=leaf.stop == "stop")

    def prune(self, node: Node) -> None:
        self._speculation.prune(node)
        self.tree.prune(node)

    def decide(self, name: str, decision: Callable[[], Any]) -> Any:
        """What was decided under this name, by a former attempt too; a decision that rests on more than the tree."""
        if name not in self.tree.decisions:
            self.tree.decide(name, decision())
        return self.tree.decisions[name]

    def num_asked(self, node: Node) -> int:
        """How many children of a node were asked for so far, be they there or not: the ordinal of the next one."""
        return self._cursors.get(node.index, 0)

    def num_tokens_since(self, ordinal: int) -> int:
        """Of the root's children from this one to the last that was asked for, and of all nodes below them.

        A tree of a former attempt may hold more: what the strategy, run again, has not asked for yet.
        """
        asked = range(ordinal, self.num_asked(self.root))
        paths = (node.path() for node in self.tree.nodes[1:])
        return sum(len(path[-1].ids) for path in paths if path[0].ordinal in asked)

    @property
    def can_score(self) -> bool:
        """Whether there is a reward model to ask."""
        return self._engine.can_score

    def learned(self) -> Mapping[str, float]:
        """Sums by name of what settled jobs of the batch have taught. It changes with time: only `decide` by it."""
        return self._learned()

    def teach(self, name: str, number: float) -> None:
        """Of this job; told when it settles, so a strategy that is run again on its tree teaches the same again."""
        assert math.isfinite(number)
        self.lessons[name] = self.lessons.get(name, 0.0) + number

    def random(self, draw: int) -> random.Random:
        """The source of the strategy's own draw of this number: the same in every attempt."""
        return random.Random(seed.of_child(self.root.seed, _DRAWS + draw))  # noqa: S311

    @property
    def num_thinking_tokens(self) -> int:
        thought = self.manner.thought
        return 0 if thought is None else self._streams.num_thinking_tokens(thought)

    def encode(self, text: str) -> list[int]:
        return self._engine.encode(text)

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
        self._speculation.close()
        for node in list(self.tree.growing):
            growth = self._growths.get(node.index)
            self._cut_off(node, reason)
            if growth is not None:
                growth.finish(node)

    def close(self) -> None:
        """Gives up everything that runs and writes nothing down."""
        self._speculation.close()
        self._streams.close()

    def sync_all(self) -> None:
        self._streams.sync_all()

    def _restore(self) -> None:
        for node in self.tree.nodes[1:]:
            if node.state is NodeState.GROWING:
                self.wall.restore(node.cap)
            else:
                self.wall.count(len(node.ids))
        self.wall.refused = "budget" in self.tree.refused.values()
        if self.tree.ended is not None:
            self.end(self.tree.ended)

    def _cap(self, parent: Node) -> int:
        """The most tokens a child of this node may have."""
        made = parent.start + len(parent.ids) - len(self.root.ids)
        limit = self._limits.room_tokens
        if self._limits.tokens_per_sample is not None:
            limit = min(limit, self._limits.tokens_per_sample)
        return max(0, limit - made)

    def _ask(self, growth: Growth, ordinal: int, manner: Manner, score: bool) -> None:
        parent = growth.parent
        cap = self._cap(parent)
        if not cap or (parent.index, ordinal) in self.tree.refused:
            return

        def answer(granted: int) -> None:
            if granted:
                self._start(growth, self.tree.add(parent, ordinal, granted), manner, score)
                return
            if self.tree.ended is None:
                # Asked again by the next attempt, it would wait for half-grown nodes that only start after it.
                self.tree.refuse(parent, ordinal, "budget")
            growth.refuse(ordinal)

        growth.ask(ordinal)
        limit = self._limits.tokens_per_sample
        growth.wait(
            ordinal,
            self.wall.ask(cap, whole=limit is not None and limit <= self._limits.room_tokens, answer=answer),
        )

    def _start(self, growth: Growth, node: Node, manner: Manner, score: bool) -> None:
        growth.grow(node)
        self._growths[node.index] = growth
        self._streams.start(node, manner, partial(self._finish, growth, manner, score))

    def _finish(self, growth: Growth, manner: Manner, score: bool, node: Node, end: End) -> None:
        del self._growths[node.index]
        assert node.parent is not None
        reason = end.reason
        if reason == "length" and node.cap < self._cap(node.parent):
            reason = "budget"
        node.stop_chars = end.stop_chars
        self.tree.finish(node, reason, self._text(node), stop_chars=end.stop_chars)
        self.wall.settle(node.cap, len(node.ids))
        self._hand_out(growth, node, score)
        if reason == "separator" and score:
            self._speculate(node, manner)

    def _speculate(self, leaf: Node, manner: Manner) -> None:
        assert leaf.parent is not None
        cap = self._cap(leaf) if self.wall.tokens is None else min(self._cap(leaf), self.wall.tokens)
        if cap:
            order_of = partial(self._streams.order_below, leaf, manner, cap)
            self._speculation.consider(leaf, self._cursors[leaf.parent.index], order_of)

    def _hand_out(self, growth: Growth, node: Node, score: bool) -> None:
        if score and node.score is None and self.text(node):
            self._scores.ask(node)
        growth.finish(node)

    def _cancel(self, growth: Growth) -> None:
        for ordinal, request in growth.asked.items():
            if request is not None:
                self.wall.withdraw(request)
            self.tree.refuse(growth.parent, ordinal, "settled")
        for node in growth.growing.values():
            self._cut_off(node, "settled")
        for _, _, node in growth.ready:
            self.prune(node)

    def _cut_off(self, node: Node, reason: str) -> None:
        self._streams.cut_off(node)
        self._growths.pop(node.index, None)
        self.tree.cancel(node, reason, self._text(node))
        self.wall.settle(node.cap, len(node.ids))

    def _text(self, node: Node) -> str:
        return text_of(node, self.tree, self._engine)
