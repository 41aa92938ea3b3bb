"""Who caused how much work: what the bill is divided by."""

from __future__ import annotations

from ponder.jobs.tick_report import Work, WorkKind


class WorkBook:
    """Weights by job and kind since they were last taken; arithmetic and memory traffic in one unit, operations."""

    def __init__(self) -> None:
        self._weights: dict[tuple[int, WorkKind], float] = {}

    def add(self, job_id: int, kind: WorkKind, weight: float) -> None:
        key = (job_id, kind)
        self._weights[key] = self._weights.get(key, 0.0) + weight

    def take(self) -> tuple[Work, ...]:
        work = tuple(Work(job_id, weight, kind) for (job_id, kind), weight in self._weights.items())
        self._weights = {}
        return work
