"""The tick: one fenced transaction in which trees, settlements and costs stand or fall together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from ponder.domain.cost import CostKind
from ponder.domain.incarnation import Incarnation
from ponder.domain.state import IncarnationState, JobState, move
from ponder.jobs.estimating.observe import observe
from ponder.jobs.incarnation import hold
from ponder.jobs.learn import Sums, learn
from ponder.jobs.recut import hand_back, hand_on
from ponder.jobs.settle import settle
from ponder.jobs.shard import finish_settled
from ponder.jobs.tick_report import EndReason, NextStage, Settlement, TickReply, TickReport, Usage, Work
from ponder.jobs.wake import wake
from ponder.jobs.worker_sample import keep
from ponder.ledger.book import Bearer, Charge, book
from ponder.ledger.cost_totals import add_late
from ponder.ledger.spending import IS_LIMITED, Draw, Spent, allowances, spend
from ponder.store.document import dumps
from ponder.store.job_state import JOB_STATE

__all__ = ["EndReason", "NextStage", "Settlement", "TickReply", "TickReport", "Usage", "Work", "tick"]


@dataclass(frozen=True, slots=True)
class _Growth:
    """The tokens that a tick saved and the costs that it booked for `jobs`, of which it `settled` some."""

    jobs: Mapping[int, _Job]
    settled: set[int]
    saved: Mapping[int, int]
    costs: Mapping[Bearer, int]


@dataclass(frozen=True, slots=True)
class _Job:
    """A job in the report, as it was when the tick began."""

    id: int
    tenant_id: str
    batch_id: str
    state: JobState
    is_held: bool
    is_shared: bool
    """Whether it settles, and other incarnations have had it too."""

    @property
    def is_open(self) -> bool:
        """Whether this incarnation may still report on it."""
        return self.is_held and self.state is JobState.PENDING


# Only jobs that may be settled are locked. The others are only named in the ledger.
# One document instead of rows, which the driver would decode value by value.
_JOBS = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id, tenant_id, batch_id, state FROM jobs
        WHERE id = ANY(CAST(:settled AS bigint[])) ORDER BY id FOR NO KEY UPDATE
    ), reported AS (
        SELECT * FROM locked
        UNION ALL
        SELECT id, tenant_id, batch_id, state FROM jobs WHERE id = ANY(CAST(:others AS bigint[]))
    )
    SELECT coalesce(json_agg(json_build_array(jobs.id, jobs.tenant_id, batch_id, {JOB_STATE}, jobs.id IN (
        SELECT job_id FROM attempts WHERE incarnation_id = :incarnation_id AND ended_at IS NULL
    ), jobs.id = ANY(CAST(:settled AS bigint[])) AND EXISTS (
        SELECT FROM attempts WHERE job_id = jobs.id AND incarnation_id <> :incarnation_id
    ))), '[]')
    FROM reported AS jobs JOIN batches ON batches.id = batch_id
""")

_APPEND = text("""
    INSERT INTO tree_deltas (tenant_id, batch_id, job_id, incarnation_id, delta, num_tokens)
    SELECT tenant_id, batch_id, job_id, :incarnation_id, delta, num_tokens
    FROM json_to_recordset(CAST(:deltas AS json))
      AS appended(tenant_id text, batch_id text, job_id bigint, delta json, num_tokens bigint)
""")

_DROP = text(f"""
    WITH dropped AS (
        UPDATE attempts SET outcome = 'cancelled', ended_at = CAST(:now AS timestamptz)
        FROM jobs JOIN batches ON batches.id = jobs.batch_id
        WHERE attempts.incarnation_id = :incarnation_id AND attempts.ended_at IS NULL
          AND jobs.id = attempts.job_id AND {JOB_STATE} <> 'pending'
        RETURNING attempts.job_id
    ), forgotten AS (
        DELETE FROM tree_deltas USING dropped WHERE tree_deltas.job_id = dropped.job_id
    )
    SELECT job_id FROM dropped ORDER BY job_id
""")

_LIMITED = text(f"""
    SELECT id FROM batches
    WHERE id IN (SELECT batch_id FROM shards WHERE holder = :holder AND state = 'held') AND {IS_LIMITED}
""")

_DROPPED_BEFORE = text("""
    SELECT job_id FROM attempts
    WHERE incarnation_id = :incarnation_id AND outcome IN ('cancelled', 'preempted')
      AND ended_at = CAST(:now AS timestamptz)
    ORDER BY job_id
""")

_LIMITS = text("""
    SELECT job_id, CASE WHEN deadline_at <= CAST(:now AS timestamptz) THEN 'deadline' ELSE 'dollars' END AS reason
    FROM attempts
    WHERE incarnation_id = :incarnation_id AND ended_at IS NULL
      AND CASE WHEN deadline_at <= CAST(:now AS timestamptz) THEN true
               WHEN limit_nanodollars IS NULL THEN false
               ELSE limit_nanodollars <= (SELECT sum(nanodollars) FROM ledger_entries
                                          WHERE ledger_entries.job_id = attempts.job_id) END
    ORDER BY job_id
""")

_EXTEND = text("""
    UPDATE incarnations
    SET state = :state, room_tokens = :room_tokens, num_ticks = :number, lease_until = CAST(:lease_until AS timestamptz)
    WHERE id = :incarnation_id
""")


def tick(connection: Connection, report: TickReport) -> TickReply:
    """Appends deltas, settles finished jobs and hands others on, books the time since the last tick, and extends the
    lease on progress.

    Raises LeaseLost, having written nothing, if the incarnation is no longer alive.
    """
    incarnation = hold(connection, report.incarnation_id)
    if report.number == incarnation.num_ticks:
        return _repeat(connection, incarnation)
    assert report.number == incarnation.num_ticks + 1, f"tick {report.number} after {incarnation.num_ticks}"
    now = incarnation.now
    incarnation = replace(incarnation, state=_state(incarnation.state, report.state))
    jobs = _reported_jobs(connection, report)
    shared = {job.id for job in jobs.values() if job.is_shared}
    settled = settle(connection, _accepted(report.settled, jobs), now, incarnation.id, shared)
    saved = _append(connection, report, jobs, settled)
    charges = [Charge(_bearer(work, jobs[work.job_id]), work.weight) for work in report.work]
    costs = book(
        connection, incarnation, now, overhead=incarnation.overhead, charges=charges, idle_fraction=report.idle_fraction
    )
    add_late(connection, incarnation.id, now, _late(jobs, costs))
    observe(connection, settled)
    limited = connection.execute(_LIMITED, {"holder": incarnation.id}).scalars().all()
    _spend(connection, incarnation.id, _Growth(jobs, settled, saved, costs), limited)
    left = _drop(connection, incarnation.id, now)
    moved = hand_on(connection, incarnation.id, now, report.handed_on)
    dropped = tuple(sorted((*left, *_hand_back(connection, incarnation.id, now, limited))))
    if settled or dropped or moved:
        finish_settled(connection, incarnation.id, now)
        wake(connection)
    lease_until = _extend(connection, incarnation, report)
    if report.sample is not None:
        keep(connection, incarnation.id, now, report.sample)
    ended = _ended(connection, incarnation.id, now)
    lessons = learn(connection, _lessons(report, jobs, settled))
    return TickReply(now, lease_until, dropped, ended, lessons, incarnation.drain_until)


def _repeat(connection: Connection, incarnation: Incarnation) -> TickReply:
    """Returns the lost reply again, without any effect."""
    values = {"incarnation_id": incarnation.id, "now": incarnation.billed_until}
    dropped = tuple(connection.execute(_DROPPED_BEFORE, values).scalars())
    ended = _ended(connection, incarnation.id, incarnation.now)
    return TickReply(incarnation.now, incarnation.lease_until, dropped, ended, drain_until=incarnation.drain_until)


def _state(current: IncarnationState, reported: IncarnationState) -> IncarnationState:
    """Returns the new state. Only a move to draining is made here, because a report may be older than `ready`."""
    if reported is not IncarnationState.DRAINING or current is IncarnationState.DRAINING:
        return current
    return move(current, reported)


def _reported_jobs(connection: Connection, report: TickReport) -> dict[int, _Job]:
    settled = {settlement.job_id for settlement in report.settled}
    others = {work.job_id for work in report.work} | set(report.deltas)
    values = {"settled": sorted(settled), "others": sorted(others - settled), "incarnation_id": report.incarnation_id}
    rows = connection.execute(_JOBS, values).scalar_one() if settled or others else ()
    jobs = {
        id_: _Job(id_, tenant_id, batch_id, JobState(state), held, shared)
        for id_, tenant_id, batch_id, state, held, shared in rows
    }
    assert jobs.keys() == settled | others, "a report about jobs that do not exist"
    return jobs


def _accepted(settlements: Iterable[Settlement], jobs: Mapping[int, _Job]) -> list[Settlement]:
    """Returns one settlement per job, and only for jobs that this incarnation holds."""
    once = {settlement.job_id: settlement for settlement in settlements}
    return [settlement for job_id, settlement in once.items() if jobs[job_id].is_open]


def _append(connection: Connection, report: TickReport, jobs: Mapping[int, _Job], settled: set[int]) -> dict[int, int]:
    """Saves deltas. Returns how many tokens each job's have."""
    rows = [
        {
            "tenant_id": jobs[job_id].tenant_id,
            "batch_id": jobs[job_id].batch_id,
            "job_id": job_id,
            "delta": delta,
            "num_tokens": _num_sampled(delta),
        }
        for job_id, deltas in report.deltas.items()
        if jobs[job_id].is_open and job_id not in settled
        for delta in deltas
    ]
    if rows:
        connection.execute(_APPEND, {"incarnation_id": report.incarnation_id, "deltas": dumps(rows)})
    return {
        job_id: sum(map(_num_sampled, deltas))
        for job_id, deltas in report.deltas.items()
        if jobs[job_id].is_open and job_id not in settled
    }


def _num_sampled(delta: Mapping[str, Any]) -> int:
    """Counts the token ids that sampling added. Those of node 0, the root, are the prompt."""
    return sum(len(row.get("ids", ())) for row in delta.get("nodes", ()) if row["node"] != 0)


def _lessons(report: TickReport, jobs: Mapping[int, _Job], settled: set[int]) -> Iterator[tuple[str, Sums]]:
    """Yields the lessons of each settled job once, by batch."""
    once = {settlement.job_id: settlement.learned for settlement in report.settled}
    return ((jobs[job_id].batch_id, once[job_id]) for job_id in sorted(settled))


def _bearer(work: Work, job: _Job) -> Bearer:
    kind = CostKind(work.kind)
    if job.state in (JobState.CANCELLED, JobState.EXPIRED):
        kind = CostKind.CANCELLED
    elif job.state is not JobState.PENDING:
        kind = CostKind.DUPLICATE
    return Bearer(job.id, job.tenant_id, job.batch_id, kind)


def _late(jobs: Mapping[int, _Job], costs: Mapping[Bearer, int]) -> dict[int, int]:
    """Returns the nano-dollars of jobs that the incarnation held no more when the tick began."""
    late: Counter[int] = Counter()
    for bearer, nanodollars in costs.items():
        if nanodollars and not jobs[bearer.job_id].is_open:
            late[bearer.job_id] += nanodollars
    return late


def _spend(connection: Connection, incarnation_id: str, growth: _Growth, limited: Sequence[str]) -> None:
    """Counts toward the batches what settlements and bookings do not: saved tokens, and this tick's costs of the jobs
    that it settled.

    What running jobs of the `limited` batches use is drawn on their reserve.
    """
    costs: Counter[int] = Counter()
    for bearer, nanodollars in growth.costs.items():
        costs[bearer.job_id] += nanodollars
    spent: defaultdict[str, Spent] = defaultdict(Spent)
    for job_id, tokens in growth.saved.items():
        spent[growth.jobs[job_id].batch_id].generated_tokens += tokens
    for job_id in growth.settled & costs.keys():
        spent[growth.jobs[job_id].batch_id].settled_nanodollars += costs[job_id]
    draws = {
        job_id: Draw(growth.saved.get(job_id, 0), costs[job_id])
        for job_id in growth.saved.keys() | costs.keys()
        if growth.jobs[job_id].batch_id in limited
    }
    spend(connection, incarnation_id, spent, draws)


def _hand_back(connection: Connection, incarnation_id: str, now: datetime, limited: Sequence[str]) -> list[int]:
    """Hands the jobs of batches back that are paused or at the limit of a budget. Returns these jobs."""
    stopped = [batch_id for batch_id, found in allowances(connection, limited).items() if found.must_stop]
    return hand_back(connection, incarnation_id, now, stopped) if stopped else []


def _drop(connection: Connection, incarnation_id: str, now: datetime) -> tuple[int, ...]:
    return tuple(connection.execute(_DROP, {"incarnation_id": incarnation_id, "now": now}).scalars())


def _extend(connection: Connection, incarnation: Incarnation, report: TickReport) -> datetime:
    lease_until = incarnation.lease_until
    if report.progressed:
        lease_until = max(lease_until, incarnation.now + timedelta(seconds=report.lease_s))
    values = {"incarnation_id": incarnation.id, "number": report.number, "room_tokens": report.room_tokens}
    connection.execute(_EXTEND, values | {"state": incarnation.state.value, "lease_until": lease_until})
    return lease_until


def _ended(connection: Connection, incarnation_id: str, now: datetime) -> dict[int, EndReason]:
    rows = connection.execute(_LIMITS, {"incarnation_id": incarnation_id, "now": now})
    return {row.job_id: row.reason for row in rows}
