"""The Search handle, which strategies are written against."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ponder.domain.strategy import Aggregate
from ponder_worker.answers.extraction import THINKING, extract
from ponder_worker.search.engine_port import EnginePort, VerifierReply
from ponder_worker.search.expansion.expansion import Expansion, Samples
from ponder_worker.search.expansion.node_expander import NodeExpander
from ponder_worker.search.expansion.scores import Scores, aggregate
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.expansion.streams import GenerationOptions
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node, child_seed
from ponder_worker.search.tree.search_tree import SearchTree

_FIRST_RANDOM_ORDINAL = 1 << 32
"""Ordinals from here on belong to no child: a strategy's own random numbers get seeds that no node has."""


class Search:
    """One job's search. Everything that a strategy learns from it is a function of the tree, never of time.

    On the tree of a former attempt it hands over the children that are there, goes on with half-grown ones, and
    requests a score or a verdict only where the tree has none. A strategy grows the tree through `expander`.

    aggregate: how a path's score is made of its steps' scores where the strategy does not say.
    on_round: is told the number of each round that begins, from 1 on.
    learned: returns sums by name over the batch's settled jobs. They change with time: use them in `decide` only.
    """

    def __init__(
        self,
        tree: SearchTree,
        engine: EnginePort,
        limits: SearchLimits,
        *,
        num_choices: int = 1,
        answer_of: Callable[[str], str | None] = extract,
        aggregate: Aggregate = "product",
        learned: Callable[[], Mapping[str, float]] = dict,
        on_round: Callable[[int], None] | None = None,
    ) -> None:
        self.tree = tree
        self.root = tree.root
        self.engine = engine
        self.num_choices = num_choices
        self.learned = learned
        self.options = GenerationOptions(thought=engine.thought, thinking_tokens=limits.thinking_tokens)
        """How nodes grow unless a strategy changes it."""
        self.scores = Scores(tree, engine)
        self.expander = NodeExpander(tree, engine, limits, self.scores, aggregate)
        self.lessons: dict[str, float] = {}
        """The numbers that this job adds to the sums of `learned` when it settles."""
        self.rounds: list[int] = []
        """The ordinal of the root's next child when each round, or each further try, began."""
        self.answer_of = answer_of
        """Reads the answer out of a text."""
        self._aggregate = aggregate
        self._on_round = on_round
        self._pending_verdict: asyncio.Future[None] | None = None

    def begin_round(self) -> None:
        self.rounds.append(self.expander.num_requested(self.root))
        if self._on_round is not None:
            self._on_round(len(self.rounds))

    def complete(
        self,
        node: Node,
        n: int = 1,
        *,
        score: bool = False,
        options: GenerationOptions | None = None,
    ) -> Samples:
        """Requests n whole samples below a node: `async for candidate in …`, in `NodeExpander.generate`'s order.

        A sample that was stopped for its low confidence comes too, cut off and without a score.
        """

        async def candidate_of(leaf: Node) -> Candidate:
            candidate = self.candidate(leaf)
            return candidate.scored(await self.path_score(leaf)) if score and leaf.stop != "confidence" else candidate

        return Samples(self.expander.generate(node, n, options or self.options, score=score), candidate_of)

    async def path_score(self, node: Node, by: Aggregate | None = None) -> float | None:
        """Returns the score of the whole path, combined from its steps' scores. A step without text is not scored.

        A path without any text has none, because the logarithm of its likelihood, 0, would be the highest of all. A
        path has none either if one of its steps was not scored before the search was told to end. Raises NoRewardModel.
        """
        steps = [step for step in node.path() if step.stop != "forced" and self.text(step)]
        for step in steps:
            if step.score is None:
                self.scores.request(step)
        asked = [await self.scores.of(step) for step in steps]
        scores = [score for score in asked if score is not None]
        return aggregate(scores, by or self._aggregate) if scores and len(scores) == len(asked) else None

    async def verify(self, candidate: Candidate) -> VerifierReply:
        """Returns what the job's verifier says, which is asked once for each leaf. Raises NoVerifier.

        A search that was told to end waits for no verdict: a candidate without one has not passed.
        """
        leaf = candidate.node
        if leaf.passed is None and self.tree.ended is None:
            await self._ask_verifier(candidate)
        return VerifierReply(bool(leaf.passed), leaf.feedback or "")

    async def say(self, node: Node, text: str) -> Node | None:
        """Adds the user's answer to the model's turn that ends here; None if the budget has no room for it."""
        ids = self.engine.user_turn(text)
        # The model may have ended its turn itself.
        return await self.expander.force(node, ids[1:] if node.ids and ids[:1] == node.ids[-1:] else ids)

    def candidate(self, leaf: Node) -> Candidate:
        """Returns the text of the model's last turn and the answer in it.

        A closed thought is not searched for an answer. A thought that was cut off gives one only if it marks it as
        such.
        """
        text, thought, said, is_cut = self._turn(leaf)
        # What a thought that was cut off marks as its answer counts.
        answer = self.answer_of(f"{THINKING}{thought}" if is_cut else said)
        return Candidate(leaf, text, answer, leaf.stop == "stop", thought=thought, reply=said)

    def ask(self, question: list[int], n: int, options: GenerationOptions) -> Expansion | None:
        """Requests n replies to a prompt of its own; None if the search was told to end before."""
        prompt = self.expander.ask(question)
        return None if prompt is None else self.expander.generate(prompt, n, options)

    def said(self, leaf: Node) -> str:
        """Returns the model's last turn without its thought.

        Without the last line of a turn that was cut off, too: nobody knows how it would have ended.
        """
        said = self._turn(leaf)[2]
        return said if leaf.stop == "stop" else said.rpartition("\n")[0]

    def _turn(self, leaf: Node) -> tuple[str, str | None, str, bool]:
        """Returns the text of the model's last turn, its thought, the rest, and whether the thought was cut off."""
        path, decode = leaf.path(), self.engine.decode
        turns = [index for index, step in enumerate(path) if step.stop == "forced" or step.is_prompt]
        turn = path[turns[-1] + 1 :] if turns else path
        text = "".join(map(self.text, turn))
        text = text[: len(text) - self.tree.num_stop_chars_before(leaf, decode)]
        if self.options.thought is None or not self.options.thought.close:
            return text, None, text, False
        ids = [token for step in turn for token in step.ids]
        return text, *self._parted(self.options.thought, leaf.prompt.ids, ids, text, leaf.stop_chars)

    def _parted(
        self, thought: Thought, prompt: Sequence[int], ids: Sequence[int], text: str, stop_chars: int
    ) -> tuple[str | None, str, bool]:
        """Parts a turn into its thought, None if it has none, and the rest. Returns also whether the thought is open.

        stop_chars: the characters at the end of the ids' text that are not part of `text`.
        """
        found, decode = thought.span(prompt, ids), self.engine.decode
        if found is None and thought.is_strict:
            return None, text, False
        if found is None:  # some models close a thought that they did not open
            inside, mark, after = text.rpartition(thought.close)
            return (inside.strip(), after.lstrip(), False) if mark else (None, text, False)
        start, end = found
        inside = decode(ids[start:end])
        if end is None:
            return inside[: max(0, len(inside) - stop_chars)].strip(), "", True
        before, after = (
            decode(ids[: max(0, start - len(thought.open_ids))]),
            decode(ids[end + len(thought.close_ids) :]),
        )
        return inside.strip(), (before + after[: max(0, len(after) - stop_chars)]).lstrip(), False

    def text(self, node: Node) -> str:
        """Returns the text of this step alone."""
        return self.tree.text_of(node, self.engine.decode)

    def decide(self, name: str, decision: Callable[[], Any]) -> Any:
        """Returns the decision recorded under this name, and makes it if there is none.

        For decisions that rest on more than the tree: a later attempt must not decide otherwise.
        """
        if name not in self.tree.decisions:
            self.tree.decide(name, decision())
        return self.tree.decisions[name]

    def num_computed_since(self, ordinal: int) -> int:
        """Counts the tokens of the root's children requested so far, from this ordinal on, and of all nodes below them.

        Tokens that were scored count twice: to score one costs about as much as to generate it. The tree of a former
        attempt may hold more: nodes that the strategy, which runs anew, has not requested yet.
        """
        requested = range(ordinal, self.expander.num_requested(self.root))
        nodes = (node for node in self.tree.nodes if node.is_sampled and node.path()[0].ordinal in requested)
        return sum(len(node.ids) * (1 if node.score is None else 2) for node in nodes)

    def teach(self, lesson: Mapping[str, float]) -> None:
        """Adds to the job's lessons. A strategy that runs anew on its tree teaches the same again."""
        for name, number in lesson.items():
            assert math.isfinite(number)
            self.lessons[name] = self.lessons.get(name, 0.0) + number

    def random(self, number: int) -> random.Random:
        """Returns the strategy's own source of randomness of this number, which is the same in every attempt."""
        return random.Random(child_seed(self.root.seed, _FIRST_RANDOM_ORDINAL + number))  # noqa: S311

    @property
    def num_thinking_tokens(self) -> int:
        thought = self.options.thought
        return 0 if thought is None else self.expander.streams.num_thinking_tokens(thought)

    def end(self, reason: str) -> None:
        """Makes the search finish with what there is: nothing starts any more, and what grows is cut off."""
        self.expander.end(reason)
        self.scores.end()
        if self._pending_verdict is not None:
            self._pending_verdict.cancel()

    async def _ask_verifier(self, candidate: Candidate) -> None:
        self._pending_verdict = pending = asyncio.get_running_loop().create_future()

        def take(reply: VerifierReply) -> None:
            if not pending.done():
                self.tree.set_verdict(candidate.node, reply.passed, reply.feedback)
                pending.set_result(None)

        self.engine.verify(candidate.text, candidate.answer, take)
        await asyncio.wait([pending])
