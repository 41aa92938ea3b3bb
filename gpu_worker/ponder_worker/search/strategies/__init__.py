"""The strategies, one file each, and their table: which function runs a spec, and how several rounds are ranked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ponder.domain.strategy import AnyStrategy
from ponder_worker.search.ranking import Select
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.ab_mcts import ab_mcts
from ponder_worker.search.strategies.allocation.adaptive import adaptive
from ponder_worker.search.strategies.answer_probing import answer_probing
from ponder_worker.search.strategies.beam_search import beam_search
from ponder_worker.search.strategies.best_of_n import best_of_n
from ponder_worker.search.strategies.budget_forcing import budget_forcing
from ponder_worker.search.strategies.direct import direct
from ponder_worker.search.strategies.dvts import dvts
from ponder_worker.search.strategies.mcts import mcts
from ponder_worker.search.strategies.particle_filter import particle_filter
from ponder_worker.search.strategies.rebase import rebase
from ponder_worker.search.strategies.refine import refine
from ponder_worker.search.strategies.rounds import repeat
from ponder_worker.search.strategies.self_consistency import self_consistency
from ponder_worker.search.tree.candidate import Candidate


@dataclass(frozen=True, slots=True)
class _Strategy:
    """A line of the table. select: how candidates are ranked. Under "best", those without a score keep their order."""

    play: Callable[[Search, Any], Awaitable[list[Candidate]]]
    select: Callable[[Any], Select] = lambda spec: "best"


STRATEGIES = {
    "direct": _Strategy(direct),
    "self_consistency": _Strategy(self_consistency, lambda spec: "majority"),
    "best_of_n": _Strategy(best_of_n, lambda spec: spec.select if spec.judging is None else "best"),
    "beam_search": _Strategy(beam_search),
    "dvts": _Strategy(dvts),
    "rebase": _Strategy(rebase),
    "mcts": _Strategy(mcts),
    "ab_mcts": _Strategy(ab_mcts),
    "particle_filter": _Strategy(particle_filter),
    "refine": _Strategy(refine),
    "budget_forcing": _Strategy(budget_forcing),
    "answer_probing": _Strategy(answer_probing),
    "adaptive": _Strategy(adaptive, lambda spec: "weighted"),
}


async def run(search: Search, spec: AnyStrategy, max_rounds: int = 1) -> list[Candidate]:
    """Returns all candidates that the strategy made, the chosen one first, as a function of the tree and nothing else.

    max_rounds: how often the strategy may run if its choice fails the job's verifier. Raises NoVerifier.
    """
    strategy = STRATEGIES[spec.name]
    return await repeat(search, partial(strategy.play, search, spec), max_rounds, by=strategy.select(spec))
