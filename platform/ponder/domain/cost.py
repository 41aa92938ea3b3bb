"""The kinds of cost in the ledger."""

from __future__ import annotations

from enum import StrEnum


class CostKind(StrEnum):
    """The purpose of a ledger entry. Jobs bear the first five kinds; the others are the worker's overhead."""

    WORK = "work"
    RECOMPUTED = "recomputed"
    """Prefill of tokens that an earlier attempt had already computed."""
    SPECULATED = "speculated"
    """Steps begun before a search asked for them, and still not asked for when the time was booked."""
    CANCELLED = "cancelled"
    """Work for a job that was cancelled or had expired meanwhile."""
    DUPLICATE = "duplicate"
    """Work for a job that another worker had settled."""

    IDLE = "idle"
    LOADING = "loading"
    DRAINING = "draining"
    LOST = "lost"
    """From a dead worker's last tick to the end of its lease."""
