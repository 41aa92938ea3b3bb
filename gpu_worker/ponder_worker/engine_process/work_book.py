"""How much work each job has caused: what the bill for the engines' time is divided by."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.jobs.tick_report import Work, WorkKind


@dataclass(slots=True)
class Meter:
    """Counts tokens for one job's usage.

    cached_tokens: tokens of its prompt that were found in pages when it was first computed; None before that.
    """

    job_id: int
    recomputed_tokens: int = 0
    cached_tokens: int | None = None
    reward_tokens: int = 0


class WorkBook:
    """Sums weights by job and kind. A weight is in operations; memory traffic is converted into them."""

    def __init__(self) -> None:
        self._weights: dict[tuple[int, WorkKind], float] = {}

    def add(self, job_id: int, kind: WorkKind, weight: float) -> None:
        key = (job_id, kind)
        self._weights[key] = self._weights.get(key, 0.0) + weight

    def take(self) -> tuple[Work, ...]:
        """Returns the sums since the last call."""
        work = tuple(Work(job_id, weight, kind) for (job_id, kind), weight in self._weights.items())
        self._weights = {}
        return work
