"""Whole samples in waves, until more of them would not change the choice. Strategies that vote or choose share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

from ponder.domain.strategy import EarlyStopping
from ponder_worker.answers.equality import canonical
from ponder_worker.search.ranking import Select, rank
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate

CONFIDENCE = 0.95
WINDOW = 5


def probability_of_majority(first: int, second: int) -> float:
    """Returns the probability that the answer seen `first` times stays ahead of the one seen `second` times.

    It is the integral of x^first (1 - x)^second over (1/2, 1], divided by that over (0, 1] (Aggarwal et al. 2023,
    arXiv:2305.11860). For whole numbers that is 1 - P(Binomial(first + second + 1, 1/2) <= second).
    """
    num = first + second + 1
    return 1.0 - sum(comb(num, k) for k in range(second + 1)) / (1 << num)


class Agreement:
    """Counts the votes of candidates, given in the order of their creation. One that was cut off has no vote."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._votes = [_vote(candidate) for candidate in candidates]
        ranked = Counter(vote for vote in self._votes if vote is not None).most_common(2)
        self.top: str | None = ranked[0][0] if ranked else None
        self.first = ranked[0][1] if ranked else 0
        self.second = ranked[1][1] if len(ranked) > 1 else 0

    @property
    def share(self) -> float:
        """The share of the most frequent answer; 0 if there is none."""
        return self.first / len(self._votes) if self._votes else 0.0

    def is_settled(self, rule: EarlyStopping, chosen: Candidate) -> bool:
        """Tells whether `chosen` would still be the answer after more samples."""
        if self.top is None or _vote(chosen) != self.top:
            return False
        if rule == "beta":
            return probability_of_majority(self.first, self.second) >= CONFIDENCE
        window = self._votes[-WINDOW:]
        return len(self._votes) % WINDOW == 0 and set(window) == {self.top}

    def is_decided(self, num_left: int) -> bool:
        """Tells whether `num_left` more votes could not bring another answer to the top."""
        return self.first > self.second + num_left

    def num_to_settle(self, rule: EarlyStopping) -> int:
        """Returns the fewest further samples that could settle it, if all agreed with the most frequent answer."""
        if rule == "window":
            return WINDOW - len(self._votes) % WINDOW
        more = 1
        while probability_of_majority(self.first + more, self.second) < CONFIDENCE:
            more += 1
        return more


def _vote(candidate: Candidate) -> str | None:
    return None if candidate.answer is None or not candidate.is_complete else canonical(candidate.answer)


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
