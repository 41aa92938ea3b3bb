"""The work of speculative sequences: when to begin one, and how its cost is booked."""

from __future__ import annotations

from dataclasses import dataclass

from ponder_worker.engine import Sequence
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.engine_process.step_time import StepTime
from ponder_worker.engine_process.work_book import WorkBook

_PRIOR_TOKENS = 64.0
_FORGETTING = 1 / 256


@dataclass(slots=True)
class SpeculationStats:
    """Counters since the process began. Tokens are those that a sequence had when it was adopted or cancelled."""

    speculation_hits: int = 0
    speculation_misses: int = 0
    speculated_tokens: int = 0
    misguessed_tokens: int = 0


@dataclass(slots=True)
class UnbookedWork:
    """Work whose kind is not known yet. num_known: tokens that came with the request. weight: of what is not booked."""

    job_id: int
    num_known: int
    weight: float = 0.0


class SpeculativeWork:
    """Books a sequence's work as `work` if it is adopted before the work is due, and as `speculated` otherwise.

    A speculative sequence adds a row to steps that are computed anyway, which costs the time of one row. If it is
    adopted it saves that row in a later step, and with it at best a row's share of the fixed time of a step. So a
    further one pays while

        hit rate * seconds of an empty step / rows > (1 - hit rate) * seconds per row,

    all of which are measured here, the hit rate in tokens. Speculation ends by itself in a full engine, which has many
    rows in a step. With every question the hit rate drifts back to a half, so that it is tried again from time to time.
    """

    def __init__(self, book: WorkBook, step_time: StepTime, *, is_on: bool = True) -> None:
        self.stats = SpeculationStats()
        self._is_on = is_on
        self._book = book
        self._step_time = step_time
        self._unbooked: dict[Sequence, UnbookedWork] = {}
        self._hit_tokens = self._missed_tokens = _PRIOR_TOKENS

    @property
    def num_live(self) -> int:
        return sum(sequence.finish_reason is None for sequence in self._unbooked)

    @property
    def hit_rate(self) -> float:
        return self._hit_tokens / (self._hit_tokens + self._missed_tokens)

    def pays(self, generator: InferenceEngine) -> bool:
        """Tells whether one more sequence would pay. To be asked before each."""
        num_rows = generator.num_running + generator.num_waiting
        if not self._is_on or num_rows >= generator.max_sequences or not generator.free_tokens:
            return False
        self._learn(0, 0)
        fit = self._step_time.fit()
        if fit is None:
            return False
        return self.hit_rate * fit.fixed_s > (1 - self.hit_rate) * fit.row_s * max(fit.mean_rows, num_rows)

    def add(self, sequence: Sequence, job_id: int) -> None:
        self._unbooked[sequence] = UnbookedWork(job_id, len(sequence.tokens))

    def book(self, sequence: Sequence, weight: float) -> bool:
        """Takes the work of a speculative sequence. Returns False for any other."""
        work = self._unbooked.get(sequence)
        if work is not None:
            work.weight += weight
        return work is not None

    def hit(self, sequence: Sequence) -> None:
        """The sequence is adopted: it becomes an ordinary one."""
        work = self._unbooked.pop(sequence)
        num_tokens = len(sequence.tokens) - work.num_known
        self._book.add(work.job_id, "work", work.weight)
        self.stats.speculation_hits += 1
        self.stats.speculated_tokens += num_tokens
        self._learn(num_tokens, 0)

    def miss(self, sequence: Sequence) -> None:
        """The sequence is cancelled. Does nothing if it is not speculative."""
        work = self._unbooked.pop(sequence, None)
        if work is None:
            return
        num_tokens = len(sequence.tokens) - work.num_known
        self._book.add(work.job_id, "speculated", work.weight)
        self.stats.speculation_misses += 1
        self.stats.misguessed_tokens += num_tokens
        self._learn(0, num_tokens)

    def book_all(self) -> None:
        """Books all work that is due now as `speculated`, because it is not known whether it will be of use."""
        for work in self._unbooked.values():
            self._book.add(work.job_id, "speculated", work.weight)
            work.weight = 0.0

    def _learn(self, num_hit: int, num_missed: int) -> None:
        self._hit_tokens += num_hit + _FORGETTING * (_PRIOR_TOKENS - self._hit_tokens)
        self._missed_tokens += num_missed + _FORGETTING * (_PRIOR_TOKENS - self._missed_tokens)
