"""Speculative steps: streams that are begun before it is known that they will be wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ponder.domain.strategy import Aggregate
from ponder_worker.search.engine_port import EnginePort, Stream, StreamEnd, StreamRequest
from ponder_worker.search.expansion.scores import aggregate
from ponder_worker.search.tree.node import Node, child_seed
from ponder_worker.search.tree.search_tree import SearchTree


@dataclass(frozen=True, slots=True)
class _Leaf:
    request: StreamRequest | None
    num_children: int


@dataclass(slots=True, eq=False)
class _Guess:
    leaf: Node
    request: StreamRequest
    end: StreamEnd | None = None
    done: Callable[[StreamEnd], None] | None = None

    def finish(self, end: StreamEnd) -> None:
        self.end = end
        if self.done is not None:
            self.done(end)


class Speculation:
    """Continues the most likely leaves before it is decided which are kept, outside the tree and the token budget.

    A leaf's likelihood is given by its path's scores, and by the model's own log-probability of steps that have no
    score yet. A leaf is expected to get as many children as its parent got. There are never more guesses than steps of
    this job that have ended and wait for the others, so a job takes no more room than it would take anyway.

    A guess becomes a node's stream only if the node's request is exactly the same, seed and token limit included, so
    the tree is the one that would have grown without. All other guesses are cancelled, and their tokens are wasted.
    """

    def __init__(self, tree: SearchTree, engine: EnginePort, by: Aggregate) -> None:
        self._tree = tree
        self._engine = engine
        self._aggregate = by
        self._leaves: dict[Node, _Leaf] = {}
        self._guesses: dict[int, tuple[_Guess, Stream]] = {}  # by seed
        self._most_growing = 0

    def consider(self, leaf: Node, request: StreamRequest | None, num_children: int) -> None:
        """Takes a leaf that has ended and whose score is pending.

        request: the request that a child will make, apart from its seed; None if that cannot be known yet.
        """
        if self._tree.ended is None:
            self._leaves[leaf] = _Leaf(request, num_children)
            self._update()

    def leave(self, leaf: Node) -> None:
        """Gives up a leaf that was pruned, or whose children have been requested."""
        self._leaves.pop(leaf, None)
        for seed, (guess, _) in list(self._guesses.items()):
            if guess.leaf is leaf:
                self._cancel(seed)

    def take(
        self, node: Node, request: StreamRequest, done: Callable[[StreamEnd], None]
    ) -> tuple[Stream, StreamEnd | None] | None:
        """Hands the guess that made this very request to a node, and with it its end, of which `done` is not called."""
        if request.seed not in self._guesses:
            return None
        if self._guesses[request.seed][0].request != request:
            self._cancel(request.seed)
            return None
        guess, stream = self._guesses.pop(request.seed)
        guess.done = done
        self._engine.adopt(stream)
        self._tree.count("speculation_hits", 1)
        self._tree.mark_speculative(node)
        return stream, guess.end

    def close(self) -> None:
        self._leaves.clear()
        for seed in list(self._guesses):
            self._cancel(seed)

    def _update(self) -> None:
        """Cancels guesses that are no longer among the most likely, and begins those that now are."""
        wanted = dict(self._most_likely())
        for seed in self._guesses.keys() - wanted.keys():
            self._cancel(seed)
        for seed, leaf in wanted.items():
            request = self._leaves[leaf].request
            if seed in self._guesses or request is None:
                continue
            guess = _Guess(leaf, replace(request, seed=seed))
            stream = self._engine.speculate(guess.request, guess.finish)
            if stream is None:
                return
            self._guesses[seed] = guess, stream

    def _most_likely(self) -> Iterator[tuple[int, Node]]:
        """Yields (seed, leaf) of the children for which there is room."""
        num_growing = len(self._tree.growing)
        self._most_growing = max(self._most_growing, num_growing + 1)
        room = self._most_growing - num_growing
        for leaf in sorted(self._leaves, key=self._estimate, reverse=True):
            for ordinal in range(min(room, self._leaves[leaf].num_children)):
                yield child_seed(leaf.seed, ordinal), leaf
                room -= 1

    def _estimate(self, leaf: Node) -> float:
        path = leaf.path()
        scores = [step.score for step in path if step.score is not None]
        unscored = sum(step.logprob for step in path if step.score is None)
        return unscored + (aggregate(scores, self._aggregate) if scores else 0.0)

    def _cancel(self, seed: int) -> None:
        guess, stream = self._guesses.pop(seed)
        self._engine.cancel(stream)
        self._tree.count("speculation_misses", 1)
        self._tree.count("misguessed_tokens", len(stream.tokens) - guess.request.start)
