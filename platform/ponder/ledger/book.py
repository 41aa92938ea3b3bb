"""Booking a worker's time: whoever caused it bears it, and nothing gets lost."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.domain.cost import CostKind


@dataclass(frozen=True, slots=True)
class Charge:
    """One bearer of a tick's time."""

    job_id: int
    tenant_id: str
    batch_id: str
    kind: CostKind
    weight: float
