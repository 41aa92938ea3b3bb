"""One path in which unsure steps are tried again."""

from __future__ import annotations

from dataclasses import replace

from ponder_worker.search.search import Search
from ponder_worker.search.strategies.allocation.evidence import surprisal
from ponder_worker.search.tree.candidate import Candidate

_WIDTH = 4
_MAX_STEPS = 40


async def surest_path(search: Search, *, separator: str, limit: float) -> list[Candidate]:
    """Grows one path step by step. A step of a higher surprisal than `limit` is tried four times in all, and the
    likeliest try is kept. No reward model is asked. Returns no candidate if the budget has no room.
    """
    node = search.root
    for left in reversed(range(_MAX_STEPS)):
        options = replace(search.options, separator=separator if left else None)
        tries = await search.expander.generate(node, 1, options).all()
        if tries and surprisal(tries) > limit:
            others = await search.expander.generate(node, _WIDTH - 1, options).all()
            tries += sorted(others, key=lambda step: step.ordinal)
        if not tries:
            break
        best = max(tries, key=lambda step: step.logprob)
        for step in tries:
            if step is not best:
                search.expander.prune(step)
        node = best
        if node.stop != "separator":
            break
    return [] if node is search.root else [search.candidate(node)]
