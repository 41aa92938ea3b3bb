"""Thinking for as long as it is told to: Muennighoff et al. 2025 (s1), https://arxiv.org/abs/2501.19393."""

from __future__ import annotations

from dataclasses import replace

from ponder.domain.strategy import BudgetForcing
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.expansion.thought import Thought
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.direct import in_order

_ANSWER_TOKENS = 128
"""Kept for what follows `answer` in a sample of a model that does not say where its thought ends."""


async def budget_forcing(search: Search, spec: BudgetForcing) -> list[Candidate]:
    """One sample a choice. A wait that has no room before the thought must be closed is left out.

    A model without a thought of its own is held off the end of its text, and made to answer only at the limit.
    """
    manner = replace(search.manner, wait_ids=tuple(search.encode(spec.wait)), num_waits=spec.num_waits)
    if manner.thought is None:
        manner = replace(manner, thought=Thought((), (), "", tuple(search.encode(spec.answer)), _ANSWER_TOKENS))
    return in_order([sample async for sample in search.complete(search.root, search.num_choices, manner=manner)])
