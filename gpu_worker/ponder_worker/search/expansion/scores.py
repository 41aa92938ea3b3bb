"""The reward model's scores for a tree's nodes. Each is requested once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial

from ponder.domain.strategy import Aggregate
from ponder_worker.search.engine_port import EnginePort, ScoreRequest
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree


class Scores:
    """Takes a score from the tree if a former attempt left it there, and waits for it if it is pending.

    A search that was told to end requests no more: reading eight long samples may cost many times what is left.
    """

    def __init__(self, tree: SearchTree, engine: EnginePort) -> None:
        self._tree = tree
        self._engine = engine
        self._pending: dict[int, asyncio.Future[None]] = {}

    async def of(self, node: Node) -> float | None:
        """Returns None if the search was told to end before the score was known. Raises NoRewardModel."""
        if node.score is None:
            await self.request(node)
        return node.score

    def request(self, node: Node) -> asyncio.Future[None]:
        """Requests the score of this step, given all steps before it."""
        future = self._pending.get(node.index)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            if self._tree.ended is not None:
                future.set_result(None)
                return future
            self._pending[node.index] = future
            self._engine.score(self._request_for(node), partial(self._take, node))
        return future

    def end(self) -> None:
        """Cancels what is pending. Callers that wait for a score go on without it."""
        self._engine.cancel_scores()
        for future in self._pending.values():
            future.set_result(None)
        self._pending.clear()

    def _request_for(self, node: Node) -> ScoreRequest:
        ids, decode = self._tree.ids_to(node), self._engine.decode
        first = len(ids) - len(node.ids)
        before = tuple(self._tree.text_of(step, decode) for step in node.path()[:-1])
        return ScoreRequest(ids[:first], ids[first:], "".join(before), self._tree.text_of(node, decode), before)

    def _take(self, node: Node, score: float) -> None:
        self._tree.set_score(node, score)
        self._pending.pop(node.index).set_result(None)


def probability(score: float | None) -> float:
    """Returns a probability for whatever a reward model says. No score and NaN count as no evidence."""
    return 0.0 if score is None or math.isnan(score) else math.exp(min(0.0, score))


def aggregate(scores: Sequence[float], by: Aggregate) -> float:
    """Combines the scores of a path's steps, all logarithms of probabilities. The mean is of the probabilities."""
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
