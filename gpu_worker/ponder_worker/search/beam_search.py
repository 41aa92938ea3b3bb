"""Reward-guided search over steps: Snell et al. 2024, https://arxiv.org/abs/2408.03314.

The order of decisions is that of huggingface/search-and-learn (`beam_search.py`), so that results compare; not its
faults: a path that was cut off is not complete, an empty step is not scored, and n < width still prunes.
"""

from __future__ import annotations

from itertools import cycle, islice

from ponder.domain.strategy import BeamSearch
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.node import Node
from ponder_worker.search.search import Search
from ponder_worker.search.selection import by_score, rank


async def beam_search(search: Search, spec: BeamSearch) -> list[Candidate]:
    """Each round every path grows by one step; finished ones are set aside, the best n / width of the rest survive."""
    done: list[Node] = []
    paths = [search.root]
    for left in reversed(range(spec.max_rounds)):
        steps = await _grow(search, list(islice(cycle(paths), spec.n)), spec.separator if left else None)
        done += [step for step in steps if step.stop != "separator"]
        going = [step for step in steps if step.stop == "separator"]
        if not steps:
            done += [path for path in paths if path is not search.root]
        paths = await _survivors(search, _without_duplicates(search, going), spec)
        for step in going:
            if step not in paths:
                search.prune(step)
        if not paths:
            break
    candidates = [search.candidate(leaf).scored(await search.path_score(leaf, spec.aggregate)) for leaf in done]
    return rank(candidates, by="best")


async def _grow(search: Search, paths: list[Node], separator: str | None) -> list[Node]:
    """One continuation of every path, in the order of the paths; fewer without room in the budget: the beam narrows."""
    growths = [search.generate(path, separator=separator, score=True) for path in paths]
    return [step for growth in growths for step in await growth.all()]


def _without_duplicates(search: Search, steps: list[Node]) -> list[Node]:
    """Paths of the same text are one path, the first."""
    unique: dict[str, Node] = {}
    for step in steps:
        unique.setdefault(search.candidate(step).text, step)
    return list(unique.values())


async def _survivors(search: Search, steps: list[Node], spec: BeamSearch) -> list[Node]:
    candidates = [search.candidate(step).scored(await search.path_score(step, spec.aggregate)) for step in steps]
    best = {candidate.node.index for candidate in by_score(candidates)[: max(1, spec.n // spec.width)]}
    return [step for step in steps if step.index in best]
