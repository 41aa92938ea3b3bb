"""The part of the work that the parent has not been told of yet."""

from __future__ import annotations

import time
from collections.abc import Collection

from ponder_worker.protocol import Document, JobResult


class Unreported:
    """The results of finished jobs, the last deltas of their trees, and how long the process has been idle."""

    def __init__(self) -> None:
        self.results: list[JobResult] = []
        self.deltas: dict[int, Document] = {}
        """Until a finished job is judged and settled, another worker would have to continue from its tree."""
        self._num_steps_reported = 0
        self._reported_at = time.monotonic()
        self._idle_s = 0.0
        self._idle_since: float | None = None

    def forget(self, job_ids: Collection[int]) -> None:
        self.results = [result for result in self.results if result.job_id not in job_ids]
        for job_id in job_ids:
            self.deltas.pop(job_id, None)

    def begin_idle(self) -> None:
        self._idle_since = time.monotonic()

    def end_idle(self) -> None:
        self._count_idle(time.monotonic())
        self._idle_since = None

    def take_results(self) -> tuple[JobResult, ...]:
        results, self.results = tuple(self.results), []
        return results

    def take_deltas(self) -> dict[int, Document]:
        deltas, self.deltas = self.deltas, {}
        return deltas

    def take_steps(self, num_steps: int) -> int:
        """Returns how many of the steps since the start are new."""
        num_new, self._num_steps_reported = num_steps - self._num_steps_reported, num_steps
        return num_new

    def take_idle_fraction(self) -> float:
        now = time.monotonic()
        if self._idle_since is not None:
            self._count_idle(now)
            self._idle_since = now
        elapsed_s, idle_s = now - self._reported_at, self._idle_s
        self._reported_at, self._idle_s = now, 0.0
        return min(1.0, idle_s / elapsed_s) if elapsed_s > 0 else 0.0

    def _count_idle(self, now: float) -> None:
        if self._idle_since is not None:
            self._idle_s += now - self._idle_since
