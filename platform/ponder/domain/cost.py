"""What an entry of the ledger paid for."""

from __future__ import annotations

from enum import StrEnum


class CostKind(StrEnum):
    """The first five are borne by a job, the others are overhead of the worker."""

    WORK = "work"
    RECOMPUTED = "recomputed"
    """Prefill of tokens that an earlier attempt had computed already."""
    SPECULATED = "speculated"
    """Steps begun before they were asked for, which nobody had asked for when the time was booked."""
    CANCELLED = "cancelled"
    """Work for a job that was cancelled or expired meanwhile."""
    DUPLICATE = "duplicate"
    """Work for a job that somebody else had settled."""

    IDLE = "idle"
    LOADING = "loading"
    DRAINING = "draining"
    LOST = "lost"
    """From a dead worker's last tick to the end of its lease."""
