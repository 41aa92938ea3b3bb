"""Diverse verifier tree search: Beeching et al. 2024,
https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute.

The order of decisions is that of huggingface/search-and-learn (`diverse_verifier_tree_search.py`), so that results
compare; as in our beam search a path that was cut off is not complete, and an empty step is not scored.
"""

from __future__ import annotations

from ponder.domain.strategy import Dvts
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection.ranking import by_score, rank
from ponder_worker.search.strategies.paths import goes_on, grow, scored


async def dvts(search: Search, spec: Dvts) -> list[Candidate]:
    """n / width subtrees, rounded down, never compared before the end: each keeps the best of its `width` next steps.

    A subtree is done when its best step is a finished one; all that its last round finished are candidates. With
    n < width there is one subtree of n continuations. A subtree that the budget gives no step ends as it is, cut off.
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
                    search.prune(step.node)
        paths = survivors
        if not paths:
            break
    return rank(done, by="best")
