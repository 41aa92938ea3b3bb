"""The Search handle: what a strategy programs against. It batches, resumes, and keeps the budget for it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ponder.domain.strategy import Aggregate
from ponder_worker.answers.extraction import THINKING, extract
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.expansion.expansion import Expansion
from ponder_worker.search.expansion.node_expander import NodeExpander
from ponder_worker.search.expansion.samples import Samples
from ponder_worker.search.expansion.scores import Scores, aggregate
from ponder_worker.search.expansion.search_limits import Limits
from ponder_worker.search.expansion.speculation import Speculation
from ponder_worker.search.expansion.streams import GenerationOptions
from ponder_worker.search.port import Engine, Verdict
from ponder_worker.search.tree import seed
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree
from ponder_worker.search.tree.text import num_too_many

_DRAWS = 1 << 32
"""Ordinals from here on are no children's: what a strategy draws at random has seeds of its own."""


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
        self.manner = GenerationOptions(thought=engine.thought, thinking_tokens=limits.thinking_tokens)
        """How samples grow unless `generate` is told otherwise."""
        self.lessons: dict[str, float] = {}
        """What the batch's other jobs shall know when this one has ended: added to the sums that `learned` gives."""
        self._engine = engine
        self._answer_of = answer_of
        self._aggregate = aggregate
        self._learned = learned
        self._scores = Scores(tree, engine, self.text)
        self._said: asyncio.Future[None] | None = None  # by the verifier
        self._offspring = NodeExpander(tree, engine, limits, self._scores, Speculation(tree, engine, aggregate))
        self.wall = self._offspring.wall
        self.blocked = self._offspring.blocked
        """Have a child ready that a sibling's length holds back: each wants a `look` after a step."""

    def generate(
        self,
        node: Node,
        n: int = 1,
        *,
        separator: str | None = None,
        score: bool = False,
        manner: GenerationOptions | None = None,
    ) -> Expansion:
        """n more children: `async for child in …`, by (length in tokens, ordinal). Asking twice for 4 makes 8.

        Each ends where the model ends it, at its limit, or after the `separator`, which it keeps. Fewer come when the
        budget has no room. They stand in the line for it from now on, not from when they are awaited.
        score: their scores are asked for as soon as they have ended.
        """
        return self._offspring.generate(node, n, manner or replace(self.manner, separator=separator), score=score)

    def complete(
        self,
        node: Node,
        n: int = 1,
        *,
        score: bool = False,
        aggregate: Aggregate | None = None,
        manner: GenerationOptions | None = None,
    ) -> Samples:
        """n whole samples below a node as candidates, scored if asked for, in `generate`'s order."""

        async def candidate_of(leaf: Node) -> Candidate:
            candidate = self.candidate(leaf)
            return candidate.scored(await self.path_score(leaf, aggregate)) if score else candidate

        return Samples(self.generate(node, n, score=score, manner=manner), candidate_of)

    async def score(self, node: Node) -> float | None:
        """The reward model's score of this step after all before it; asked once a node. Raises NoRewardModel.

        None for what was not scored yet when the search was told to end.
        """
        return await self._scores.of(node)

    async def path_score(self, node: Node, by: Aggregate | None = None) -> float | None:
        """Of the whole path, its steps' scores taken together. A step without text claims nothing and is not scored.

        None for a path without any text: where scores are log-probabilities, no claim would be the best of claims. None
        also for a path of which a step was not scored before the search was told to end.
        """
        asked = [await self.score(step) for step in node.path() if step.stop != "forced" and self.text(step)]
        scores = [score for score in asked if score is not None]
        return aggregate(scores, by or self._aggregate) if scores and len(scores) == len(asked) else None

    async def verify(self, candidate: Candidate) -> Verdict:
        """What the job's verifier says; asked once a leaf. Raises NoVerifier.

        A search that was told to end waits for nobody: what has not been said by then has not passed.
        """
        leaf = candidate.node
        if leaf.passed is None and self.tree.ended is None:
            await self._ask(candidate)
        return Verdict(bool(leaf.passed), leaf.feedback or "")

    async def say(self, node: Node, text: str) -> Node | None:
        """The user's answer to the model's turn that ends here, as a child; None when the budget has no room for it."""
        return await self._offspring.force(node, lambda: self._turn(node, text))

    def candidate(self, leaf: Node) -> Candidate:
        """The text is of the model's last turn. The answer is not looked for in a thought that is closed; one that
        was cut off gives an answer only where it marks one.
        """
        path = leaf.path()
        turns = [index for index, step in enumerate(path) if step.stop == "forced"]
        text = "".join(map(self.text, path[turns[-1] + 1 :] if turns else path))
        text = text[: len(text) - num_too_many(leaf, self.tree, self._engine)]
        thought = self.manner.thought
        said = text
        if thought is not None and thought.close:
            ids = [token for step in (path[turns[-1] + 1 :] if turns else path) for token in step.ids]
            is_cut = thought.measure(self.root.ids, ids)[1]
            said = THINKING + text if is_cut else text.rpartition(thought.close)[2]
        return Candidate(leaf, text, self._answer_of(said), is_complete=leaf.stop == "stop")

    def prune(self, node: Node) -> None:
        self._offspring.prune(node)

    def decide(self, name: str, decision: Callable[[], Any]) -> Any:
        """What was decided under this name, by a former attempt too; a decision that rests on more than the tree."""
        if name not in self.tree.decisions:
            self.tree.decide(name, decision())
        return self.tree.decisions[name]

    def num_asked(self, node: Node) -> int:
        """How many children of a node were asked for so far, be they there or not: the ordinal of the next one."""
        return self._offspring.num_asked(node)

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
        return 0 if thought is None else self._offspring.streams.num_thinking_tokens(thought)

    def encode(self, text: str) -> list[int]:
        return self._engine.encode(text)

    def text(self, node: Node) -> str:
        """Of this step alone."""
        return self._offspring.text(node)

    def end(self, reason: str) -> None:
        """Comes to its end with what there is: nobody starts any more, who grows is cut off as it is."""
        self._offspring.end(reason)
        self._scores.end()
        if self._said is not None:
            self._said.cancel()

    def close(self) -> None:
        """Gives up everything that runs and writes nothing down."""
        self._offspring.close()

    def sync_all(self) -> None:
        """What streams have made so far stands in the tree."""
        self._offspring.streams.sync_all()

    async def _ask(self, candidate: Candidate) -> None:
        self._said = said = asyncio.get_running_loop().create_future()

        def hear(verdict: Verdict) -> None:
            if not said.done():
                self.tree.set_verdict(candidate.node, verdict.passed, verdict.feedback)
                said.set_result(None)

        self._engine.verify(candidate.text, candidate.answer, hear)
        await asyncio.wait([said])

    def _turn(self, node: Node, text: str) -> list[int]:
        ids = self._engine.turn(text)
        # The model may have ended its turn itself.
        return ids[1:] if node.ids and ids[:1] == node.ids[-1:] else ids
