"""Ticks on their way to Postgres: each is saved exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.domain.state import IncarnationState
from ponder.failure import brief
from ponder.jobs.tick import TickReply, TickReport, tick
from ponder_worker.parent.unsaved import Unsaved

_log = structlog.get_logger(__name__)


class TickState(Enum):
    CONFIRMED = auto()
    """Postgres has confirmed every tick that was sent."""
    UNCONFIRMED = auto()
    """The last commit was not answered, so it is open whether the tick was saved."""


@dataclass(frozen=True, slots=True)
class _Tick:
    report: TickReport
    content: Unsaved


class TickWriter:
    """Gathers what is unsaved and writes it, one transaction per tick.

    An unconfirmed tick is sent again unchanged; by its number it has no effect if it was saved. Meanwhile the engine
    goes on, and what it reports is gathered for the tick after.
    """

    def __init__(
        self, database: Engine, incarnation_id: str, *, lease_s: float, on_saved: Callable[[TickReply, Unsaved], None]
    ) -> None:
        """Calls `on_saved` with each confirmed tick before the next one is made."""
        self.gathered = Unsaved()
        self._database = database
        self._incarnation_id = incarnation_id
        self._lease_s = lease_s
        self._lease_ends = time.monotonic() + lease_s
        self.began_s = time.monotonic()
        """When the last transaction began, by the monotonic clock."""
        self._on_saved = on_saved
        self._number = 0
        self._unconfirmed: _Tick | None = None

    @property
    def state(self) -> TickState:
        return TickState.CONFIRMED if self._unconfirmed is None else TickState.UNCONFIRMED

    @property
    def holds_lease(self) -> bool:
        """True while the last tick that Postgres confirmed is recent enough."""
        return time.monotonic() < self._lease_ends

    def write(self, state: IncarnationState, room_tokens: int) -> TickState:
        """Sends what is unsaved, the oldest first. Raises LeaseLost."""
        try:
            if self._unconfirmed is not None:
                self._commit(self._unconfirmed)
            self._unconfirmed = self._next(state, room_tokens)
            self._commit(self._unconfirmed)
        except (SQLAlchemyError, OSError) as error:
            _log.warning("tick_not_saved", error=brief(error))
        return self.state

    def _next(self, state: IncarnationState, room_tokens: int) -> _Tick:
        self._number += 1
        content, self.gathered = self.gathered, Unsaved()
        report = TickReport(
            incarnation_id=self._incarnation_id,
            number=self._number,
            lease_s=self._lease_s,
            progressed=content.progressed,
            state=state,
            room_tokens=room_tokens,
            work=list(content.work.values()),
            idle_fraction=content.idle_fraction,
            deltas=content.unsettled_deltas,
            settled=list(content.settled.values()),
            handed_on=content.handed_on,
            sample=content.sample,
        )
        return _Tick(report, content)

    def _commit(self, one: _Tick) -> None:
        """Only an answered commit is certain; after any other end the same tick is sent again."""
        self.began_s = time.monotonic()
        with self._database.begin() as connection:
            reply = tick(connection, one.report)
        self._unconfirmed = None
        self._lease_ends = self.began_s + (reply.lease_until - reply.now).total_seconds()
        self._on_saved(reply, one.content)
