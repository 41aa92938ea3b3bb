"""The reward model's scores of a tree's nodes, each asked for once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial

from ponder.domain.strategy import Aggregate
from ponder_worker.search.port import Engine, Step
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree


class Scores:
    """A score that is out is waited for, one that is in the tree is taken from there, also from a former attempt.

    A search that was told to end asks for no more: reading eight long samples may cost many times what is left.
    """

    def __init__(self, tree: SearchTree, engine: Engine, text_of: Callable[[Node], str]) -> None:
        self._tree = tree
        self._engine = engine
        self._text_of = text_of
        self._out: dict[int, asyncio.Future[None]] = {}

    async def of(self, node: Node) -> float | None:
        """None when the search was told to end before it was known. Raises NoRewardModel."""
        if node.score is None:
            await self.ask(node)
        return node.score

    def ask(self, node: Node) -> asyncio.Future[None]:
        """For the new step only, after all that comes before it."""
        future = self._out.get(node.index)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            if self._tree.ended is not None:
                future.set_result(None)
                return future
            self._out[node.index] = future
            ids = self._tree.ids_to(node)
            before = tuple(map(self._text_of, node.path()[:-1]))
            cut = len(ids) - len(node.ids)
            step = Step(ids[:cut], ids[cut:], "".join(before), self._text_of(node), before)
            self._engine.score(step, partial(self._take, node))
        return future

    def end(self) -> None:
        """Who waits for a score goes on without it."""
        self._engine.cancel_scores()
        for future in self._out.values():
            future.set_result(None)
        self._out.clear()

    def _take(self, node: Node, score: float) -> None:
        self._tree.set_score(node, score)
        self._out.pop(node.index).set_result(None)


def aggregate(scores: Sequence[float], by: Aggregate) -> float:
    """A path's score from its steps', all logarithms of probabilities; the mean is that of the probabilities."""
    match by:
        case "last":
            return scores[-1]
        case "min":
            return min(scores)
        case "product":
            return sum(scores)
        case "mean":
            highest = max(scores)
            return highest + math.log(sum(math.exp(score - highest) for score in scores) / len(scores))
