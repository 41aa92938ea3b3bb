"""Monte Carlo tree search over steps, with the reward model's score instead of rollouts: Zhang et al. 2024,
https://arxiv.org/abs/2406.03816. Leaves are chosen by PUCT: Silver et al. 2017, https://arxiv.org/abs/1712.01815.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ponder.domain.strategy import Mcts
from ponder_worker.search.ranking import by_score, rank
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.paths import goes_on, grow
from ponder_worker.search.tree.candidate import Candidate


@dataclass(slots=True, eq=False)
class Branch:
    """A path with statistics over itself and all paths below it. num_open: leaves below it that can still grow."""

    path: Candidate
    parent: Branch | None
    num_open: int
    num_visits: int = 0
    sum_values: float = 0.0
    children: list[Branch] = field(default_factory=list)

    def up(self) -> Iterator[Branch]:
        """Yields the branches from this one to the root."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.parent

    def chosen(self, exploration: float) -> Branch:
        """Returns the open child with the highest Q + exploration P sqrt(N) / (1 + N of the child), the first on ties.

        P is the same for all children: they are sampled from the model, so likely steps are already there more often.
        """
        prior = exploration * math.sqrt(self.num_visits) / len(self.children)

        def bound(child: Branch) -> float:
            return child.sum_values / child.num_visits + prior / (1 + child.num_visits)

        return max((child for child in self.children if child.num_open), key=bound)

    def extend(self, steps: list[Candidate]) -> None:
        """Adds steps as children, each visited once. Its value is its probability of being right, and counts above."""
        for step in steps:
            child = Branch(step, self, num_open=int(goes_on(step)))
            self.children.append(child)
            for branch in child.up():
                branch.num_visits += 1
                branch.sum_values += 0.0 if step.score is None else math.exp(step.score)
        change = sum(child.num_open for child in self.children) - 1
        for branch in self.up():
            branch.num_open += change


async def mcts(search: Search, spec: Mcts) -> list[Candidate]:
    """Grows the chosen leaf by `width` steps, n times, to a depth of `max_rounds`. All paths that ended are candidates.

    A leaf is not chosen again once it has ended or the budget has no room for its steps. Without such leaves the search
    is over. If no path is complete then, the open path with the highest score is grown to its end.
    """
    root = Branch(search.candidate(search.root), None, num_open=1)
    leaves: list[Branch] = []
    for _ in range(spec.n):
        if not root.num_open:
            break
        leaf = root
        while leaf.children:
            leaf = leaf.chosen(spec.exploration)
        is_last = sum(1 for _ in leaf.up()) == spec.max_rounds
        (steps,) = await grow(search, spec, [(leaf.path.node, spec.width)], is_last=is_last)
        leaf.extend(steps)
        leaves += leaf.children
    ends = [leaf.path for leaf in leaves if not leaf.children and not leaf.num_open]
    going = by_score([leaf.path for leaf in leaves if not leaf.children and leaf.num_open])
    if going and not any(end.is_complete for end in ends):
        best, *going = going
        (steps,) = await grow(search, spec, [(best.node, 1)], is_last=True)
        ends += steps or [best]
    for path in going:
        search.expander.prune(path.node)
    return rank(ends, by="best")
