"""The one fenced transaction in which trees, settlements and costs stand or fall together."""

from __future__ import annotations

from sqlalchemy import Connection

from ponder.jobs.report import EndReason, Settlement, TickReply, TickReport, Usage, Work

__all__ = ["EndReason", "Settlement", "TickReply", "TickReport", "Usage", "Work", "tick"]


def tick(connection: Connection, report: TickReport) -> TickReply:
    """Appends deltas, settles what is done, books the time since the last tick, and extends the lease on progress.

    Raises LeaseLost when the incarnation is not alive any more; nothing is written then.
    """
    raise NotImplementedError
