"""Reward-guided search over steps: Snell et al. 2024, https://arxiv.org/abs/2408.03314.

The order of decisions is that of huggingface/search-and-learn (`beam_search.py`), so that results compare; not its
faults: a path that was cut off is not complete, an empty step is not scored, and n < width still prunes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice

from ponder.domain.strategy import BeamSearch
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection.ranking import by_score, rank
from ponder_worker.search.strategies.paths import goes_on, grow, scored


async def beam_search(search: Search, spec: BeamSearch) -> list[Candidate]:
    """Each round every path grows by one step; finished ones are set aside, the best n / width of the rest survive.

    Without room in the budget the beam narrows; when it gives no step to anybody, the paths stand as they are, cut off.
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
                search.prune(step.node)
        if not paths:
            break
    return rank(done, by="best")


def _without_duplicates(paths: Iterable[Candidate]) -> list[Candidate]:
    """Paths of the same text are one path, the first."""
    unique: dict[str, Candidate] = {}
    for path in paths:
        unique.setdefault(path.text, path)
    return list(unique.values())
