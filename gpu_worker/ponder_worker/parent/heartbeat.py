"""The tick: what the engine process reported becomes one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.domain.state import IncarnationState
from ponder.failure import brief
from ponder.jobs.tick import TickReply, TickReport, tick
from ponder_worker.parent.engine_handle import EngineHandle, Message
from ponder_worker.parent.ledger_check import LedgerCheck
from ponder_worker.parent.settlement import Settling
from ponder_worker.parent.unsaved import Unsaved
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity

_log = structlog.get_logger(__name__)

_SLICE_S = 0.1
_VERDICT_S = 0.2
"""A tick waits this long for verdicts; what takes longer settles with a later one."""


class EngineStuck(Exception):
    """The engine has answered nothing for as long as the lease lasts."""


class Heartbeat:
    """Owns what is unsaved. Runs in one thread at a time: its own, and after `stop` the one that drains.

    A tick whose commit was not answered may have been saved or not, so the same one is sent again, by its number
    without effect if it was. Meanwhile the engine goes on, and what it reports is gathered for the tick after.
    """

    def __init__(
        self,
        database: Engine,
        incarnation_id: str,
        engine: EngineHandle,
        holding: WorkerCapacity,
        settling: Settling,
        *,
        counsel: VerifierBridge,
        tick_s: float,
        lease_s: float,
    ) -> None:
        self._database = database
        self._incarnation_id = incarnation_id
        self._engine = engine
        self._holding = holding
        self._settling = settling
        self._counsel = counsel
        self._tick_s = tick_s
        self._lease_s = lease_s
        self._lease_ends = time.monotonic() + lease_s
        self._state = IncarnationState.LOADING
        self._fresh = Unsaved()
        self._unsure: tuple[TickReport, Unsaved] | None = None
        self._number = 0
        self._asked: int | None = None
        self._asked_at = 0.0
        self._reported_at = time.monotonic()
        self._stopping = threading.Event()
        self._ledger_check = LedgerCheck(database, incarnation_id)
        self.metrics: Message = {}

    def run(self) -> None:
        """Until `stop`. Raises LeaseLost, EngineStuck, or whatever bug of ours ended it."""
        next_at = time.monotonic()
        while not self._stopping.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + self._tick_s, time.monotonic())
            self.beat()

    def stop(self) -> None:
        """`run` returns after the tick that it is in."""
        self._stopping.set()

    @property
    def holds_lease(self) -> bool:
        """Whether the last tick that Postgres confirmed is recent enough."""
        return time.monotonic() < self._lease_ends

    def become(self, state: IncarnationState) -> None:
        """What the next tick tells Postgres, and what its unused time is booked as."""
        self._state = state
        self._reported_at = time.monotonic()
        self._holding.admit(state is IncarnationState.READY)

    def beat(self) -> None:
        """One tick: report, verdicts, transaction. Without a report there is no tick, and the lease runs on."""
        if self._state is IncarnationState.LOADING:
            # The child says nothing while it loads; that it lives is the progress.
            self._fresh.progressed = self._engine.is_alive
        elif not self._receive_report(self._tick_s):
            # Not by the lease: a database that was slow to answer may have used that up.
            if time.monotonic() > self._asked_at + self._lease_s:
                raise EngineStuck(f"no report from the engine process for {self._lease_s:g} s")
            return
        self._collect_verdicts(_VERDICT_S)
        if self.save():
            self._ledger_check.look(is_idle=not self._holding.job_ids)

    def drain(self, until: float) -> bool:
        """After `stop`: the engine's last report, the verdicts that come in time and the last tick.

        `until` (monotonic) is when the engine must have answered; what it has not told by then is computed again.
        Returns whether all is saved; if not, `save` again.
        """
        self._state = IncarnationState.DRAINING
        while (left := until - time.monotonic()) > 0:
            message = self._engine.receive(left)
            if message is None or message["type"] == "closed":
                break
            if message["type"] == "report":
                self._take_report(message)
                if message["drained"]:
                    break
        self._collect_verdicts(max(0.0, until - time.monotonic()))
        return self.save()

    def _receive_report(self, timeout_s: float) -> bool:
        if self._asked is None:
            self._asked, self._asked_at = self._holding.admitted_tokens, time.monotonic()
            self._engine.send({"type": "report"})
        give_up_at = time.monotonic() + timeout_s
        while (left := give_up_at - time.monotonic()) > 0 and not self._stopping.is_set():
            message = self._engine.receive(min(_SLICE_S, left))
            if message is not None and message["type"] == "report":
                self._take_report(message)
                return True
            if message is not None and message["type"] == "closed":
                return False
        return False

    def _take_report(self, report: Message) -> None:
        now = time.monotonic()
        self._fresh.add_report(report, now - self._reported_at)
        self._reported_at = now
        self.metrics = report["metrics"]
        for finished in report["finished"]:
            job = self._holding.get(int(finished["job_id"]))
            if job is not None:
                self._settling.add(job, finished)
        if self._asked is not None:
            self._holding.report(int(report["room_tokens"]), self._asked)
            self._asked = None

    def _collect_verdicts(self, timeout_s: float) -> None:
        for settlement in self._settling.take(timeout_s):
            if self._holding.get(settlement.job_id) is not None:
                self._fresh.settle(settlement)

    def save(self) -> bool:
        """Sends what is unsaved, oldest first; returns whether Postgres has confirmed all of it. Raises LeaseLost."""
        try:
            if self._unsure is not None:
                self._commit(*self._unsure)
            self._number += 1
            self._unsure = (self._report_of(self._fresh), self._fresh)
            self._fresh = Unsaved()
            self._commit(*self._unsure)
        except (SQLAlchemyError, OSError) as error:
            if time.monotonic() > self._lease_ends:
                self._holding.admit(False)
            _log.warning("tick_not_saved", error=brief(error))
        return self._unsure is None

    def _commit(self, report: TickReport, unsaved: Unsaved) -> None:
        """Only an answered commit is certain; after any other end the same report is sent again."""
        started_at = time.monotonic()
        with self._database.begin() as connection:
            reply = tick(connection, report)
        self._unsure = None
        self._lease_ends = started_at + (reply.lease_until - reply.now).total_seconds()
        self._holding.admit(self._state is IncarnationState.READY)
        self._follow(reply, unsaved)

    def _report_of(self, unsaved: Unsaved) -> TickReport:
        return TickReport(
            incarnation_id=self._incarnation_id,
            number=self._number,
            lease_s=self._lease_s,
            progressed=unsaved.progressed,
            state=self._state,
            room_tokens=self._holding.room_tokens,
            work=unsaved.works,
            idle_fraction=unsaved.idle_fraction,
            deltas=unsaved.unsettled_deltas,
            settled=list(unsaved.settled.values()),
        )

    def _follow(self, reply: TickReply, saved: Unsaved) -> None:
        """Does what the reply asks for."""
        self._holding.remove(saved.settled)
        dropped = [job_id for job_id in reply.dropped if job_id not in saved.settled]
        if dropped:
            self._engine.send({"type": "drop", "job_ids": dropped})
            self._holding.remove(dropped)
            self._fresh.forget(dropped)
            for job_id in dropped:
                self._settling.forget(job_id)
        self._counsel.forget({*saved.settled, *dropped})
        if reply.ended:
            self._engine.send({"type": "end", "jobs": {str(job_id): reason for job_id, reason in reply.ended.items()}})
        if reply.learned:
            self._engine.send({"type": "learn", "learned": reply.learned})
        if saved.settled:
            _log.info("jobs_settled", num_jobs=len(saved.settled), num_held=len(self._holding.job_ids))


def run_in_thread(heartbeat: Heartbeat, on_end: Callable[[BaseException], None]) -> threading.Thread:
    """The thread in which the heart beats; `on_end` is told why it stopped, unless it was asked to."""

    def run() -> None:
        try:
            heartbeat.run()
        except BaseException as error:
            on_end(error)

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    return thread
