"""Whole samples, as many as it takes: what the strategies that vote or choose among samples have in common."""

from __future__ import annotations

from ponder.domain.strategy import EarlyStopping
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.search import Search
from ponder_worker.search.selection.agreement import Agreement
from ponder_worker.search.selection.ranking import Select, rank


async def sample(search: Search, n: int, *, select: Select, early_stopping: EarlyStopping | None) -> list[Candidate]:
    """Up to n samples below the root, ranked; what is settled is not sampled further.

    They are begun in waves, each the fewest that could settle it, because samples that run side by side end side by
    side: stopping at the fourth of sixteen would save little.
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
