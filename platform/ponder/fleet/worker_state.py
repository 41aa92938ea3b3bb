"""A worker as the autoscaler sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ponder.fleet.provider import Pool


class Phase(StrEnum):
    STARTING = "starting"
    """Ordered, and not yet registered."""
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    """The provider has been, or is being, asked to end it."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that costs money. `id` is None for one that the autoscaler did not start, and so leaves alone."""

    id: str | None
    pool: Pool
    phase: Phase
    ordered_at: datetime
    nanodollars_per_hour: int
    is_busy: bool = False
    loss_nanodollars: int = 0
    """The cost of its loading and of its unfinished work, some of which is spent again if it ends."""
    loading_s: float = 0.0
    """The time from its order until it was ready."""
    leave_by: datetime | None = None
    """The end of its draining."""

    @property
    def is_staying(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.LOADING, Phase.READY)
