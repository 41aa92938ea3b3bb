"""Reward-balanced search: Wu et al. 2024, https://arxiv.org/abs/2408.00724."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ponder.domain.strategy import Rebase
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection.ranking import by_score, rank
from ponder_worker.search.strategies.paths import goes_on, grow, scored
from ponder_worker.search.tree.node import Node


async def rebase(search: Search, spec: Rebase) -> list[Candidate]:
    """Each round the rest of the n expansions is shared among the paths; one that has ended takes one of them away.

    It ends when no path goes on or every expansion has ended. When the budget gives no step to anybody, the paths
    stand as they are, cut off; what it refused to some is shared again in the next round.
    """
    done: list[Candidate] = []
    shares = [(search.root, spec.n)]
    for left in reversed(range(spec.max_rounds)):
        steps = [step for steps in await grow(search, spec, shares, is_last=not left) for step in steps]
        done += [step for step in steps if not goes_on(step)]
        if not steps:
            done += [await scored(search, path, spec) for path, _ in shares if path is not search.root]
        going = [step for step in steps if goes_on(step)]
        shares = shared(going, spec.n - len(done), spec.temperature)
        wanted = [path for path, _ in shares]
        for step in going:
            if step.node not in wanted:
                search.prune(step.node)
        if not shares:
            break
    return rank(done, by="best")


def shared(paths: Sequence[Candidate], num: int, temperature: float) -> list[tuple[Node, int]]:
    """num expansions in proportion to exp(probability of being right / temperature); the paths that get any.

    Rounded as in the authors' code: from the best path on, each gets its share of what is left, rounded up.
    """
    ranked = by_score(paths)
    weights = [math.exp((_probability(path) - _probability(ranked[0])) / temperature) for path in ranked]
    shares = []
    for place, path in enumerate(ranked):
        share = math.ceil(num * (weights[place] / sum(weights[place:])) - 1e-9) if num > 0 else 0
        num -= share
        if share:
            shares.append((path.node, share))
    return shares


def _probability(path: Candidate) -> float:
    """0 for a path that claims nothing."""
    return 0.0 if path.score is None else math.exp(path.score)
