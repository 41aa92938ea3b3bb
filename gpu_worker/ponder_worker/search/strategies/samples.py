"""Whole samples in waves: what the strategies that vote or choose among samples share."""

from __future__ import annotations

from ponder.domain.strategy import EarlyStopping
from ponder_worker.search.search import Search
from ponder_worker.search.selection.agreement import Agreement
from ponder_worker.search.selection.ranking import Select, rank
from ponder_worker.search.tree.candidate import Candidate


async def sample(search: Search, n: int, *, select: Select, early_stopping: EarlyStopping | None) -> list[Candidate]:
    """Returns up to n samples below the root, ranked. It stops as soon as more samples would not change the choice.

    Each wave has the fewest samples that could settle it: samples that run side by side also end side by side, so that
    stopping at the fourth of sixteen would save little.
    """
    candidates: list[Candidate] = []
    while len(candidates) < n:
        before = len(candidates)
        wave = n - before
        if early_stopping is not None:
            wave = min(wave, max(Agreement(candidates).num_to_settle(early_stopping), search.num_choices - before))
        samples = search.complete(search.root, wave, score=select != "majority")
        async for candidate in samples:
            candidates.append(candidate)
            if early_stopping is not None and _is_enough(search, candidates, select, early_stopping, n):
                samples.cancel()
                return rank(candidates, by=select)
        if len(candidates) < before + wave:  # the budget has no room for more
            break
    return rank(candidates, by=select)


def _is_enough(search: Search, candidates: list[Candidate], select: Select, rule: EarlyStopping, n: int) -> bool:
    if len(candidates) < search.num_choices:
        return False
    agreement = Agreement(candidates)
    if select == "majority" and agreement.is_decided(n - len(candidates)):
        return True
    return agreement.is_settled(rule, rank(candidates, by=select)[0])
