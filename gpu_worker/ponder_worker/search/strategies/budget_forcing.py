"""Budget forcing, which makes a model think for longer: Muennighoff et al. 2025 (s1), https://arxiv.org/abs/2501.19393."""

from __future__ import annotations

from dataclasses import replace

from ponder.domain.strategy import BudgetForcing
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.direct import in_order
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.candidate import Candidate


async def budget_forcing(search: Search, spec: BudgetForcing) -> list[Candidate]:
    """Returns one sample for each choice. A wait that has no room before the thought must be closed is left out.

    A model without marks around its thought is held off the end of its text, and made to answer only at the limit.
    """
    encode = search.engine.encode
    options = replace(search.options, wait_ids=tuple(encode(spec.wait)), num_waits=spec.num_waits)
    if options.thought is None:
        options = replace(options, thought=Thought.unmarked(encode(spec.answer)))
    return in_order([sample async for sample in search.complete(search.root, search.num_choices, options=options)])
