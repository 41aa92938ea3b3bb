"""Sequences that nobody has asked for yet: who pays for them, and whether they pay."""

from __future__ import annotations

from dataclasses import dataclass

from ponder_worker.engine import Engine, Sequence
from ponder_worker.engine_process.step_time import StepTime
from ponder_worker.engine_process.work_book import WorkBook

_PRIOR_TOKENS = 64.0
_FORGETTING = 1 / 256


@dataclass(slots=True)
class SpeculationStats:
    """Since the process began; tokens that a guess had made when it was asked for, or cancelled."""

    speculation_hits: int = 0
    speculation_misses: int = 0
    speculated_tokens: int = 0
    misguessed_tokens: int = 0


@dataclass(slots=True)
class UnbookedWork:
    """weight: of work that is not booked yet."""

    job_id: int
    known: int
    weight: float = 0.0


class Guesses:
    """Their work is booked as `work` if they are asked for before it has to be booked, else as `speculated`.

    A guess takes a row in steps that are computed anyway: it costs what a row more costs a step. If it is hit, that row
    is saved in a later step, and with it at best a row's share of what a step costs whatever is in it. So guess while

        hit rate * seconds of an empty step / rows > (1 - hit rate) * seconds a row,

    all measured here, the hit rate in tokens. A full engine has many rows a step, so there it ends by itself. With
    every question the hit rate drifts back to a half, so that it is tried again from time to time.
    """

    def __init__(self, book: WorkBook) -> None:
        self.tally = SpeculationStats()
        self.step_time = StepTime()
        self._book = book
        self._stakes: dict[Sequence, UnbookedWork] = {}
        self._hit_tokens = self._missed_tokens = _PRIOR_TOKENS

    @property
    def num_live(self) -> int:
        return sum(sequence.finish_reason is None for sequence in self._stakes)

    @property
    def hit_rate(self) -> float:
        return self._hit_tokens / (self._hit_tokens + self._missed_tokens)

    def have_room(self, generator: Engine) -> bool:
        """Whether one more would pay; asked before each."""
        num_rows = generator.num_running + generator.num_waiting
        if num_rows >= generator.max_sequences or not generator.free_tokens:
            return False
        self._learn(0, 0)
        fit = self.step_time.fit()
        if fit is None:
            return False
        return self.hit_rate * fit.fixed_s > (1 - self.hit_rate) * fit.row_s * max(fit.mean_rows, num_rows)

    def add(self, sequence: Sequence, job_id: int) -> None:
        self._stakes[sequence] = UnbookedWork(job_id, len(sequence.tokens))

    def book(self, sequence: Sequence, weight: float) -> bool:
        """False for a sequence that is none of them."""
        stake = self._stakes.get(sequence)
        if stake is not None:
            stake.weight += weight
        return stake is not None

    def hit(self, sequence: Sequence) -> None:
        stake = self._stakes.pop(sequence)
        num_tokens = len(sequence.tokens) - stake.known
        self._book.add(stake.job_id, "work", stake.weight)
        self.tally.speculation_hits += 1
        self.tally.speculated_tokens += num_tokens
        self._learn(num_tokens, 0)

    def miss(self, sequence: Sequence) -> None:
        """It is cancelled; nothing happens if it is none of them."""
        stake = self._stakes.pop(sequence, None)
        if stake is None:
            return
        num_tokens = len(sequence.tokens) - stake.known
        self._book.add(stake.job_id, "speculated", stake.weight)
        self.tally.speculation_misses += 1
        self.tally.misguessed_tokens += num_tokens
        self._learn(0, num_tokens)

    def book_all(self) -> None:
        """The time has to be paid for now: of those not asked for yet nobody knows whether they will be."""
        for stake in self._stakes.values():
            self._book.add(stake.job_id, "speculated", stake.weight)
            stake.weight = 0.0

    def _learn(self, num_hit: int, num_missed: int) -> None:
        self._hit_tokens += num_hit + _FORGETTING * (_PRIOR_TOKENS - self._hit_tokens)
        self._missed_tokens += num_missed + _FORGETTING * (_PRIOR_TOKENS - self._missed_tokens)
