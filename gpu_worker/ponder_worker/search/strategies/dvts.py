"""Diverse verifier tree search: Beeching et al. 2024,
https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute.

Decisions are made in the order of huggingface/search-and-learn (`diverse_verifier_tree_search.py`), so that results
compare. As in our beam search, a path that was cut off is not complete, and an empty step is not scored.
"""

from __future__ import annotations

from ponder.domain.strategy import Dvts
from ponder_worker.search.ranking import by_score, rank
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.paths import goes_on, grow, scored
from ponder_worker.search.tree.candidate import Candidate


async def dvts(search: Search, spec: Dvts) -> list[Candidate]:
    """Grows n / width subtrees, rounded down, and compares them only at the end. Each keeps the best of `width` steps.

    A subtree is done when its best step is a finished one; all paths that its last round finished are candidates. If
    n < width, there is one subtree of n continuations. A subtree is cut off when the budget has no room for its step.
    """
    width = min(spec.width, spec.n)
    paths = [search.root] * (spec.n // width)
    done: list[Candidate] = []
    for left in reversed(range(spec.max_rounds)):
        grown = await grow(search, spec, [(path, width) for path in paths], is_last=not left)
        survivors = []
        for path, steps in zip(paths, grown, strict=True):
            best = by_score(steps)[:1]
            if best and goes_on(best[0]):
                kept = best
                survivors.append(best[0].node)
            else:
                kept = [step for step in steps if not goes_on(step)]
                done += kept or ([await scored(search, path, spec)] if path is not search.root else [])
            for step in steps:
                if step not in kept:
                    search.expander.prune(step.node)
        paths = survivors
        if not paths:
            break
    return rank(done, by="best")
