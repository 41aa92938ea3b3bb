"""One life of one worker process, as its row says while we hold the lock on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ponder.domain.cost import CostKind
from ponder.domain.state import IncarnationState


@dataclass(frozen=True, slots=True)
class Incarnation:
    """`now` is Postgres's clock, read after the lock was had and never before `billed_until`."""

    id: str
    model: str
    fingerprint: str | None
    state: IncarnationState
    nanodollars_per_hour: int
    num_ticks: int
    started_at: datetime
    lease_until: datetime
    billed_until: datetime
    now: datetime

    @property
    def overhead(self) -> CostKind:
        """What its time costs while no job is to blame."""
        if self.state is IncarnationState.LOADING:
            return CostKind.LOADING
        return CostKind.DRAINING if self.state is IncarnationState.DRAINING else CostKind.IDLE
