"""Reward-balanced search: Wu et al. 2024, https://arxiv.org/abs/2408.00724."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ponder.domain.strategy import Rebase
from ponder_worker.search.ranking import by_score, rank
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.paths import goes_on, grow, scored
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node


async def rebase(search: Search, spec: Rebase) -> list[Candidate]:
    """Shares n expansions among the paths in each round, less one for each path that has ended.

    The search is over when no path goes on or all expansions are used up. Expansions that the budget refused are shared
    again in the next round; if it has room for no step at all, the paths are cut off.
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
                search.expander.prune(step.node)
        if not shares:
            break
    return rank(done, by="best")


def shared(paths: Sequence[Candidate], num: int, temperature: float) -> list[tuple[Node, int]]:
    """Shares `num` expansions in proportion to exp(probability of being right / temperature). Omits paths without any.

    Shares are rounded as in the authors' code: from the best path on, each gets its share of the rest, rounded up.
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
    """Returns 0 for a path without a score."""
    return 0.0 if path.score is None else math.exp(path.score)
