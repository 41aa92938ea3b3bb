"""Beam search over steps, guided by a reward model: Snell et al. 2024, https://arxiv.org/abs/2408.03314.

Decisions are made in the order of huggingface/search-and-learn (`beam_search.py`), so that results compare. Three
faults of it are not repeated: a path that was cut off is not complete, an empty step is not scored, and n < width still
prunes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice

from ponder.domain.strategy import BeamSearch
from ponder_worker.search.ranking import by_score, rank
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.paths import goes_on, grow, scored
from ponder_worker.search.tree.candidate import Candidate


async def beam_search(search: Search, spec: BeamSearch) -> list[Candidate]:
    """Grows every path by one step a round, sets finished paths aside, and keeps the best n / width of the others.

    The beam narrows when the budget has no room for every step. If there is room for none, the paths are cut off.
    """
    done: list[Candidate] = []
    paths = [search.root]
    for left in reversed(range(spec.max_rounds)):
        shares = [(path, 1) for path in islice(cycle(paths), spec.n)]
        steps = [step for steps in await grow(search, spec, shares, is_last=not left) for step in steps]
        done += [step for step in steps if not goes_on(step)]
        if not steps:
            done += [await scored(search, path, spec) for path in paths if path is not search.root]
        going = [step for step in steps if goes_on(step)]
        best = by_score(_without_duplicates(going))[: max(1, spec.n // spec.width)]
        paths = [step.node for step in going if step in best]
        for step in going:
            if step not in best:
                search.expander.prune(step.node)
        if not paths:
            break
    return rank(done, by="best")


def _without_duplicates(paths: Iterable[Candidate]) -> list[Candidate]:
    """Keeps the first path of each text."""
    unique: dict[str, Candidate] = {}
    for path in paths:
        unique.setdefault(path.text, path)
    return list(unique.values())
