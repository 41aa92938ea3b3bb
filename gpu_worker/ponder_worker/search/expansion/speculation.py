"""Steps that are begun before it is known that they will be wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ponder.domain.strategy import Aggregate
from ponder_worker.search.expansion.scores import aggregate
from ponder_worker.search.port import End, Engine, Order, Stream
from ponder_worker.search.tree import seed
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree

OrderOf = Callable[[int], Order | None]
"""The order of a leaf's child of this ordinal; None where it cannot be told before the child is asked for."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    num_children: int
    order_of: OrderOf


@dataclass(slots=True, eq=False)
class _Guess:
    leaf: Node
    order: Order
    end: End | None = None
    done: Callable[[End], None] | None = None

    def finish(self, end: End) -> None:
        self.end = end
        if self.done is not None:
            self.done(end)


class Speculation:
    """Goes on below the likeliest leaves while it is not decided which are kept, outside the tree and the budget.

    Likeliest is what the path's scores say, and the model's own log-probability of the steps that have none yet. A leaf
    is expected to get as many children as its parent got. There are never more guesses than steps of this job that have
    ended and wait for the others: a job takes no more room than it takes anyway.

    A guess is taken over by the node whose order is the very same, seed and limit of tokens included, so that the tree
    is the one that would have been without. All others are cancelled, and what they have made is wasted.
    """

    def __init__(self, tree: SearchTree, engine: Engine, by: Aggregate) -> None:
        self._tree = tree
        self._engine = engine
        self._aggregate = by
        self._leaves: dict[Node, _Leaf] = {}
        self._guesses: dict[int, tuple[_Guess, Stream]] = {}  # by seed
        self._most = 0

    def consider(self, leaf: Node, num_children: int, order_of: OrderOf) -> None:
        """It has ended, and its score is out."""
        if self._tree.ended is None:
            self._leaves[leaf] = _Leaf(num_children, order_of)
            self._look()

    def leave(self, leaf: Node) -> None:
        """It is pruned, or its children have been asked for: there is nothing to guess any more."""
        self._leaves.pop(leaf, None)
        for number, (guess, _) in list(self._guesses.items()):
            if guess.leaf is leaf:
                self._cancel(number)

    def take(self, order: Order, done: Callable[[End], None]) -> tuple[Stream, End | None] | None:
        """The guess of this very order; with its end, of which `done` is not told, if it has come to that already."""
        if order.seed not in self._guesses:
            return None
        if self._guesses[order.seed][0].order != order:
            self._cancel(order.seed)
            return None
        guess, stream = self._guesses.pop(order.seed)
        guess.done = done
        self._engine.adopt(stream)
        self._tree.count("speculation_hits", 1)
        return stream, guess.end

    def close(self) -> None:
        self._leaves.clear()
        for number in list(self._guesses):
            self._cancel(number)

    def _look(self) -> None:
        wanted = dict(self._likeliest())
        for number in self._guesses.keys() - wanted.keys():
            self._cancel(number)
        for number, (leaf, ordinal) in wanted.items():
            if number in self._guesses:
                continue
            order = self._leaves[leaf].order_of(ordinal)
            if order is None:
                continue
            guess = _Guess(leaf, order)
            stream = self._engine.speculate(order, guess.finish)
            if stream is None:
                return
            self._guesses[number] = guess, stream

    def _likeliest(self) -> Iterator[tuple[int, tuple[Node, int]]]:
        """(seed, (leaf, ordinal)) of the children for which there is room."""
        num_growing = len(self._tree.growing)
        self._most = max(self._most, num_growing + 1)
        room = self._most - num_growing
        for leaf in sorted(self._leaves, key=self._estimate, reverse=True):
            for ordinal in range(min(room, self._leaves[leaf].num_children)):
                yield seed.of_child(leaf.seed, ordinal), (leaf, ordinal)
                room -= 1

    def _estimate(self, leaf: Node) -> float:
        path = leaf.path()
        scores = [step.score for step in path if step.score is not None]
        guessed = sum(step.logprob for step in path if step.score is None)
        return guessed + (aggregate(scores, self._aggregate) if scores else 0.0)

    def _cancel(self, number: int) -> None:
        guess, stream = self._guesses.pop(number)
        self._engine.cancel(stream)
        self._tree.count("speculation_misses", 1)
        self._tree.count("misguessed_tokens", len(stream.tokens) - guess.order.start)
