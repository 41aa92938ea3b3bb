"""The pilot of a batch: how far it is, what it says about the whole batch, and its owner's yes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from ponder.domain.money import dollars
from ponder.domain.state import PilotState
from ponder.domain.storable import JsonObject
from ponder.errors import Conflict

Reason = Literal["confirm", "over_budget", "failed"]

UNDECIDED = "EXISTS (SELECT FROM pilots WHERE batch_id = batches.id AND state IN ('running', 'waiting'))"
"""SQL for queries that join `batches`: whether only the jobs of the pilot may run yet."""

_FIND = text("""
    SELECT batch_id, state, must_confirm, reason, estimate, cardinality(job_ids) AS num_jobs
    FROM pilots WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
""")

_CONFIRM = text("""
    UPDATE pilots SET state = 'passed', reason = NULL WHERE batch_id = :batch_id AND state IN ('waiting', 'passed')
""")


@dataclass(frozen=True, slots=True)
class PilotStatus:
    """The state of a pilot. `reason` says why it waits, and `estimate` is that of the whole batch."""

    state: PilotState
    must_confirm: bool
    reason: Reason | None
    estimate: JsonObject | None
    num_jobs: int

    @property
    def is_undecided(self) -> bool:
        """Whether only its jobs may run yet."""
        return self.state in (PilotState.RUNNING, PilotState.WAITING)

    @property
    def message(self) -> str:
        """The reason why the rest of the batch does not run yet."""
        if self.state is PilotState.RUNNING:
            return f"the pilot of {self.num_jobs:,} job{'s' * (self.num_jobs != 1)} runs first"
        if self.reason == "failed":
            failed = f"none of the pilot's {self.num_jobs:,} jobs completed"
            if self.num_jobs == 1:
                failed = "the pilot's only job did not complete"
            return f"{failed}, so nothing is known about the others"
        total = (self.estimate or {}).get("direct_nanodollars") or {}
        if total.get("estimate") is None:
            return "the pilot does not tell what the whole batch will cost"
        said = f"{dollars(total['estimate'])} ({dollars(total['low'])} to {dollars(total['high'])})"
        if self.reason == "over_budget":
            return f"the pilot's estimate of the whole batch, {said}, exceeds the batch's budget"
        return f"the pilot's estimate of the whole batch is {said}"


def pilots(connection: Connection, batch_ids: Collection[str]) -> dict[str, PilotStatus]:
    """Returns the pilots of those batches that have one."""
    return {
        row.batch_id: PilotStatus(PilotState(row.state), row.must_confirm, row.reason, row.estimate, row.num_jobs)
        for row in connection.execute(_FIND, {"batch_ids": sorted(batch_ids)})
    }


def confirm(connection: Connection, batch_id: str) -> None:
    """Lets the rest of a batch run whose pilot waits, whatever it waits for. A pilot that has passed stays so.

    Raises Conflict if there is no estimate to say yes to.
    """
    if not connection.execute(_CONFIRM, {"batch_id": batch_id}).rowcount:
        raise Conflict("the batch has no pilot that waits for a yes: `ponder.waiting` of the batch says when it does")
