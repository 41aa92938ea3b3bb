"""What tasks cost, and what a solved one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

Dimension = Literal["tenant", "batch", "model", "strategy", "level", "market", "machine"]
DIMENSIONS: tuple[Dimension, ...] = ("tenant", "batch", "model", "strategy", "level", "market", "machine")


@dataclass(frozen=True, slots=True)
class CostRow:
    """One group. `direct` is what its own work cost; `loaded` adds its share of idle, loading and lost time.

    By market or machine, costs count where they arose and jobs where they were settled.
    """

    group: dict[Dimension, str | None]
    num_jobs: int
    num_settled: int
    num_passed: int
    accuracy: float | None
    """Passed over judged (passed, failed verdicts and failed jobs); None when nothing was judged."""
    completion_tokens: int
    tokens_per_job: float | None
    """Generated tokens a settled job."""
    direct_nanodollars: int
    loaded_nanodollars: int
    nanodollars_per_job: float | None
    """Loaded cost a settled job."""
    cost_per_successful_task: float | None
    """Loaded nano-dollars a passed job, failures included; None when nothing passed."""


def cost_report(
    connection: Connection,
    tenant_id: str | None,
    by: Sequence[Dimension] = (),
    batch_ids: Sequence[str] | None = None,
) -> list[CostRow]:
    """One row a group, in the groups' order; without `by` one row in all. `tenant_id` None means every tenant's."""
    raise NotImplementedError
