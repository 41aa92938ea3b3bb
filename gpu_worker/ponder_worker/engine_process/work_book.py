"""How much work each job has caused, and how much time had none: what the bill for the engines' time is divided by."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ponder.jobs.tick_report import Work, WorkKind


@dataclass(slots=True)
class Meter:
    """Counts tokens for one job's usage.

    cached_tokens: tokens of its prompt that were found in pages when it was first computed; None before that.
    first_token_ms, first_visible_token_ms: when its first token came, and its first one outside a thought, in
    milliseconds of Postgres's Unix time; None before that.
    """

    job_id: int
    recomputed_tokens: int = 0
    cached_tokens: int | None = None
    reward_tokens: int = 0
    first_token_ms: int | None = None
    first_visible_token_ms: int | None = None


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


class IdleTime:
    """Measures which part of the time this process had nothing to do."""

    def __init__(self) -> None:
        self._taken_at = time.monotonic()
        self._idle_s = 0.0
        self._idle_since: float | None = None

    def begin(self) -> None:
        self._idle_since = time.monotonic()

    def end(self) -> None:
        self._count(time.monotonic())
        self._idle_since = None

    def take_fraction(self) -> float:
        """Returns the idle fraction of the time since the last call."""
        now = time.monotonic()
        if self._idle_since is not None:
            self._count(now)
            self._idle_since = now
        elapsed_s, idle_s = now - self._taken_at, self._idle_s
        self._taken_at, self._idle_s = now, 0.0
        return min(1.0, idle_s / elapsed_s) if elapsed_s > 0 else 0.0

    def _count(self, now: float) -> None:
        if self._idle_since is not None:
            self._idle_s += now - self._idle_since
