"""The tick: what the engine process reported becomes one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.domain.state import IncarnationState
from ponder.errors import LedgerImbalance
from ponder.jobs.tick import TickReply
from ponder.jobs.tick_report import WorkerSample
from ponder.ledger.book import check
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.engine_reports import EngineReports
from ponder_worker.parent.job_traces import JobTraces
from ponder_worker.parent.settlement import Settling
from ponder_worker.parent.tick_writer import TickState, TickWriter
from ponder_worker.parent.unsaved import Unsaved
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.parent.worker_metrics import JobMetrics
from ponder_worker.protocol import Drop, End, EngineMetrics, Learn, Report

_log = structlog.get_logger(__name__)

_VERDICT_S = 0.2
"""How long a tick waits for verdicts; a job whose verdict takes longer settles with a later tick."""
_SAMPLE_S = 1.9
"""The least time between samples of the load; a little less than the usual tick, which is never quite on time."""


class Heartbeat:
    """Beats in one thread at a time: its own, and after `stop` the one that drains."""

    def __init__(
        self,
        database: Engine,
        incarnation_id: str,
        engine: EngineHandle,
        capacity: WorkerCapacity,
        settling: Settling,
        *,
        bridge: VerifierBridge,
        tick_s: float,
        lease_s: float,
        on_drain: Callable[[float], None],
        traces: JobTraces | None = None,
    ) -> None:
        """Calls `on_drain` with the seconds that are left once it was asked to leave, and again if there are fewer."""
        self._engine = engine
        self._capacity = capacity
        self._settling = settling
        self._bridge = bridge
        self._tick_s = tick_s
        self._on_drain = on_drain
        self._traces = traces
        self._drain_until: datetime | None = None
        self._reports = EngineReports(engine, capacity, patience_s=lease_s)
        self._writer = TickWriter(database, incarnation_id, lease_s=lease_s, on_saved=self._follow)
        self._ledger_check = _LedgerCheck(database, incarnation_id)
        self._state = IncarnationState.LOADING
        self._reported_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.metrics = EngineMetrics()
        self.job_metrics = JobMetrics()
        self._sampled = EngineMetrics()
        self._sampled_at = self._reported_at

    def start(self, on_end: Callable[[BaseException], None]) -> None:
        """Beats in a thread of its own; `on_end` is told why it ended, unless it was asked to stop."""

        def run() -> None:
            try:
                self.run()
            except BaseException as error:
                on_end(error)

        self._thread = threading.Thread(target=run, name="heartbeat", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Beats until `stop`. Raises LeaseLost, EngineStuck, or whatever bug of ours ended it."""
        next_at = time.monotonic()
        while not self._stopping.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + self._tick_s, time.monotonic())
            self.beat()

    def stop(self) -> None:
        """Lets the thread end after the tick that it is in."""
        self._stopping.set()

    def wait_until_ended(self, timeout_s: float) -> bool:
        """Returns whether the thread ends in time."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def holds_lease(self) -> bool:
        """True while the last tick that Postgres confirmed is recent enough."""
        return self._writer.holds_lease

    def become(self, state: IncarnationState) -> None:
        """Sets the state that the next tick tells Postgres, and that its unused time is booked under."""
        # The first report begins where loading ends; later ones go on through a change of state.
        if self._state is IncarnationState.LOADING:
            self._reported_at = time.monotonic()
        self._state = state
        self._capacity.admit(state is IncarnationState.READY)

    def beat(self) -> None:
        """One tick: report, verdicts, transaction. Without a report there is no tick, and the lease runs on."""
        if self._state is IncarnationState.LOADING:
            # The engine process reports nothing while it loads; that it lives is the progress.
            self._writer.gathered.progressed = self._engine.is_alive
        else:
            report = self._reports.receive(self._tick_s, self._stopping)
            if report is None:
                return
            self._take(report)
        self._collect_verdicts(_VERDICT_S)
        if self.save():
            self._ledger_check.look(is_idle=not self._capacity.job_ids)

    def drain(self, until: float) -> bool:
        """After `stop`: takes the engine's last report and the verdicts that come in time, and writes the last tick.

        `until` (monotonic) is when the engine must have answered; what it has not reported by then is computed again.
        Returns whether all is saved; if not, call `save` again.
        """
        self._state = IncarnationState.DRAINING
        for report in self._reports.drain(until):
            self._take(report)
        self._collect_verdicts(max(0.0, until - time.monotonic()))
        return self.save()

    def save(self) -> bool:
        """Returns whether Postgres has confirmed everything. Raises LeaseLost."""
        if self._writer.write(self._state, self._capacity.room_tokens) is TickState.CONFIRMED:
            return True
        if not self.holds_lease:
            self._capacity.admit(False)
        return False

    def _take(self, report: Report) -> None:
        now = time.monotonic()
        self._writer.gathered.add_report(report, now - self._reported_at)
        self._reported_at = now
        self.metrics = report.metrics
        self._sample(now)
        if self._traces is not None:
            self._traces.add(report.spans)
        for result in report.results:
            job = self._capacity.get(result.job_id)
            if job is not None:
                self._settling.add(job, result)

    def _sample(self, now: float) -> None:
        """Adds a sample of the load to the tick, unless it has one, the last one is too fresh, or there is no load."""
        seconds = now - self._sampled_at
        if seconds < _SAMPLE_S or self._writer.gathered.sample is not None:
            return
        sample = WorkerSample.of(self._sampled.numbers, self.metrics.numbers, seconds)
        self._sampled, self._sampled_at = self.metrics, now
        if not sample.is_idle:
            self._writer.gathered.sample = sample

    def _collect_verdicts(self, timeout_s: float) -> None:
        for settlement in self._settling.take(timeout_s):
            if self._capacity.get(settlement.job_id) is not None:
                self._writer.gathered.settle(settlement)

    def _follow(self, reply: TickReply, saved: Unsaved) -> None:
        """Does what the reply to a saved tick asks for."""
        self._capacity.admit(self._state is IncarnationState.READY)
        self._count_settled(reply, saved)
        left = saved.settled.keys() | saved.handed_on.keys()
        if self._traces is not None:
            self._trace(self._traces, saved)
        self._capacity.remove(left)
        dropped = [job_id for job_id in reply.dropped if job_id not in left]
        if dropped:
            self._drop(dropped)
        self._bridge.forget({*left, *dropped})
        if reply.ended:
            self._engine.send(End(dict(reply.ended)))
        if reply.drain_until is not None and reply.drain_until != self._drain_until:
            self._drain_until = reply.drain_until
            self._on_drain((reply.drain_until - reply.now).total_seconds())
        if reply.learned:
            self._engine.send(Learn({batch_id: dict(sums) for batch_id, sums in reply.learned.items()}))
        if saved.settled:
            _log.info("jobs_settled", num_jobs=len(saved.settled), num_held=len(self._capacity.job_ids))

    def _trace(self, traces: JobTraces, saved: Unsaved) -> None:
        traces.saved(saved.deltas.keys() | saved.settled.keys() | saved.handed_on.keys(), self._writer.began_s)
        for settlement in saved.settled.values():
            traces.settled(settlement)
        traces.left(saved.handed_on, "handed_on")

    def _count_settled(self, reply: TickReply, saved: Unsaved) -> None:
        for job_id, settlement in saved.settled.items():
            job = self._capacity.get(job_id)
            # One that was cancelled meanwhile is dropped instead of settled.
            if job is not None and job_id not in reply.dropped:
                self.job_metrics.count(job, settlement, reply.now)

    def _drop(self, job_ids: list[int]) -> None:
        self._engine.send(Drop(tuple(job_ids)))
        self._capacity.remove(job_ids)
        self._writer.gathered.forget(job_ids)
        if self._traces is not None:
            self._traces.left(job_ids, "dropped")
        for job_id in job_ids:
            self._settling.forget(job_id)


class _LedgerCheck:
    """Checks the ledger against an incarnation's bill while it has nothing to do.

    An imbalance is a bug of ours: it is logged, and is no reason to stop working.
    """

    def __init__(self, database: Engine, incarnation_id: str) -> None:
        self._database = database
        self._incarnation_id = incarnation_id
        self._is_due = False

    def look(self, *, is_idle: bool) -> None:
        """Call it after every tick; it checks once each time that work has ended."""
        if not is_idle:
            self._is_due = True
        elif self._is_due:
            try:
                with self._database.begin() as connection:
                    check(connection, self._incarnation_id)
            except LedgerImbalance as error:
                _log.error("ledger_does_not_balance", error=str(error))
            except (SQLAlchemyError, OSError):
                return  # it stays due
            self._is_due = False
