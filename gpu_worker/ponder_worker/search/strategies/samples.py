"""Whole samples in waves, until more of them would not change the choice. Strategies that vote or choose share it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ponder.domain.strategy import Confidence, EarlyStopping, SampleSpec
from ponder_worker.search.expansion.confidence import ConfidenceRule
from ponder_worker.search.ranking import Select, rank, vote
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
    return 1.0 - sum(math.comb(num, k) for k in range(second + 1)) / (1 << num)


class Agreement:
    """Counts the votes of candidates, given in the order of their creation. One that was cut off has no vote."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._votes = [vote(candidate) for candidate in candidates]
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
        if self.top is None or vote(chosen) != self.top:
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


async def sample(search: Search, spec: SampleSpec, *, select: Select) -> list[Candidate]:
    """Returns up to n samples below the root, ranked. It stops as soon as more samples would not change the choice."""
    return _ranked(spec, await gather(search, spec, select=select), select)


async def gather(search: Search, spec: SampleSpec, *, select: Select) -> list[Candidate]:
    """Returns the samples in the order in which they ended.

    Each wave has the fewest samples that could settle it: samples that run side by side also end side by side, so that
    stopping at the fourth of sixteen would save little. Only if the shortest are wanted do all begin at once.
    """
    candidates: list[Candidate] = []
    while len(candidates) < spec.n:
        before = len(candidates)
        wave = _wave(search, spec, candidates)
        options = replace(search.options, confidence=_confidence_rule(spec.confidence, candidates))
        samples = search.complete(search.root, wave, score=select != "majority", options=options)
        async for candidate in samples:
            candidates.append(candidate)
            if _is_enough(search, spec, candidates, select):
                samples.cancel()
                return candidates
        if len(candidates) < before + wave:  # the budget has no room for more
            break
    return candidates


def _wave(search: Search, spec: SampleSpec, candidates: list[Candidate]) -> int:
    """Returns how many samples to begin next."""
    made = len(candidates)
    wave = spec.n - made
    if spec.early_stopping is not None and spec.shortest is None:
        wave = min(wave, max(Agreement(candidates).num_to_settle(spec.early_stopping), search.num_choices - made))
    if spec.confidence is not None and made < spec.confidence.num_warmup:
        wave = min(wave, spec.confidence.num_warmup - made)
    return wave


def _confidence_rule(wanted: Confidence | None, candidates: Sequence[Candidate]) -> ConfidenceRule | None:
    """Returns the rule for the next samples, which stops them at what the warm-up has shown."""
    if wanted is None:
        return None
    warmup = candidates[: wanted.num_warmup]
    kept = _most_confident(warmup, wanted.keep)
    is_warm = len(warmup) == wanted.num_warmup and kept
    return ConfidenceRule(wanted.window, kept[-1].confidence or 0.0 if is_warm else 0.0)


def _most_confident(candidates: Sequence[Candidate], share: float) -> list[Candidate]:
    """Returns this share of the complete samples, rounded up, the most confident first."""
    whole = [candidate for candidate in candidates if candidate.is_complete]
    whole.sort(key=lambda candidate: candidate.confidence or 0.0, reverse=True)
    return whole[: math.ceil(share * len(whole))]


def _ranked(spec: SampleSpec, candidates: list[Candidate], select: Select) -> list[Candidate]:
    """Ranks the samples that may be chosen before all others."""
    kept, others = eligible(spec, candidates)
    return [*rank(kept, by=select), *rank(others, by=select)]


def eligible(spec: SampleSpec, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Parts the samples into those that may be chosen, by their confidence, and the others."""
    if spec.confidence is None:
        return list(candidates), []
    kept = {candidate.node for candidate in _most_confident(candidates, spec.confidence.keep)}
    return (
        [candidate for candidate in candidates if candidate.node in kept],
        [candidate for candidate in candidates if candidate.node not in kept],
    )


def _is_enough(search: Search, spec: SampleSpec, candidates: list[Candidate], select: Select) -> bool:
    if len(candidates) < search.num_choices:
        return False
    if spec.shortest is not None and sum(candidate.is_complete for candidate in candidates) >= spec.shortest:
        return True
    if spec.early_stopping is None:
        return False
    agreement = Agreement(candidates)
    if select == "majority" and spec.confidence is None and agreement.is_decided(spec.n - len(candidates)):
        return True
    return agreement.is_settled(spec.early_stopping, _ranked(spec, candidates, select)[0])
