"""One life of one worker process, as its row reads under its lock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ponder.domain.cost import CostKind
from ponder.domain.state import IncarnationState


@dataclass(frozen=True, slots=True)
class Incarnation:
    """An incarnation. `now` is Postgres's time, read after the lock was taken, and not before `billed_until`."""

    id: str
    model: str
    fingerprint: str | None
    state: IncarnationState
    nanodollars_per_hour: int
    num_ticks: int
    started_at: datetime
    lease_until: datetime
    billed_until: datetime
    drain_until: datetime | None
    now: datetime

    @property
    def takes_jobs(self) -> bool:
        """Whether it is ready, and was not asked to leave."""
        return self.state is IncarnationState.READY and self.drain_until is None

    @property
    def overhead(self) -> CostKind:
        """The kind of cost of time that no job causes."""
        if self.state is IncarnationState.LOADING:
            return CostKind.LOADING
        return CostKind.DRAINING if self.state is IncarnationState.DRAINING else CostKind.IDLE
