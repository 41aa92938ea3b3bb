"""In any order of events the ledger balances, no job is lost, and none is settled twice."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moves import LEGAL, moves, watch_moves
from sqlalchemy import Engine

from ponder.domain.state import IncarnationState, JobState, Verdict
from ponder.errors import Conflict, LeaseLost
from ponder.jobs.batch.retry import retry
from ponder.jobs.dispatching.dispatcher_status import beat
from ponder.jobs.dispatching.sweep import lost_messages, sweep
from ponder.jobs.tick import NextStage, Settlement, Usage, Work
from ponder.ledger.cost_report import CostRow, cost_report
from ponder.ledger.reporting import Selection

KINDS: tuple[Literal["work", "recomputed", "speculated"], ...] = ("work", "recomputed", "speculated")

# Pending jobs of batches that go on: how many open shards they are in, and whether they are still to be cut.
_PLACES = """
    SELECT jobs.id, jobs.line > coalesce(portions.cut_until, 0) AS is_uncut,
           count(shards.id) AS num_shards
    FROM jobs
    JOIN batches ON batches.id = jobs.batch_id AND batches.state = 'in_progress'
    LEFT JOIN portions ON portions.batch_id = jobs.batch_id AND portions.model = jobs.model
                      AND portions.fingerprint = jobs.fingerprint
    LEFT JOIN shards ON shards.batch_id = jobs.batch_id AND jobs.id = ANY(shards.job_ids) AND shards.state <> 'finished'
    WHERE jobs.state = 'pending'
    GROUP BY jobs.id, jobs.line, portions.cut_until
"""

# Portions whose uncut tokens are not those of their uncut jobs. The rest of a batch that has ended is never cut.
_MISCOUNTED = """
    SELECT portions.batch_id, uncut_tokens FROM portions JOIN batches ON batches.id = portions.batch_id
    WHERE batches.state = 'in_progress' AND uncut_tokens <> (
        SELECT coalesce(sum(estimated_tokens), 0) FROM jobs
        WHERE jobs.batch_id = portions.batch_id AND jobs.model = portions.model
          AND jobs.fingerprint = portions.fingerprint AND line > cut_until
    )
"""

_HELD = """
    SELECT jobs.id, shards.holder, array_agg(attempts.incarnation_id) AS attempts
    FROM shards JOIN jobs ON jobs.id = ANY(shards.job_ids) AND jobs.state = 'pending'
    LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.ended_at IS NULL
    WHERE shards.state = 'held'
    GROUP BY jobs.id, shards.holder
"""

_COMPANY = """
    SELECT holder, count(*) AS num_shards FROM shards WHERE state = 'held' GROUP BY holder HAVING bool_or(runs_alone)
"""

_HOURS = """
    SELECT worker, date_trunc('hour', until_at, 'UTC') AS hour,
           coalesce(sum(nanodollars) FILTER (WHERE job_id IS NOT NULL), 0) AS direct_nanodollars,
           coalesce(sum(nanodollars) FILTER (WHERE job_id IS NULL), 0) AS overhead_nanodollars
    FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id GROUP BY 1, 2 ORDER BY 1, 2
"""
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""With a beginning, a report reads jobs and entries instead of totals."""

# Every way in which a worker may settle a job, by the job's number.
_ENDS: tuple[dict[str, Any], ...] = (
    {"state": JobState.COMPLETED, "verdict": Verdict.PASSED},
    {"state": JobState.COMPLETED, "verdict": Verdict.FAILED},
    {"state": JobState.COMPLETED, "verdict": Verdict.UNVERIFIED},
    {"state": JobState.COMPLETED, "verdict": Verdict.PASSED, "checked": Verdict.PASSED},
    {"state": JobState.COMPLETED, "verdict": Verdict.PASSED, "checked": Verdict.FAILED},
    {"state": JobState.COMPLETED, "verdict": Verdict.FAILED, "checked": Verdict.UNVERIFIED},
    {"state": JobState.FAILED, "error": {"code": "c", "message": "m"}},
)

_pick = st.integers(min_value=0, max_value=10**6)
_choices = st.lists(st.booleans(), min_size=32, max_size=32)


class Fleet(RuleBasedStateMachine):
    """A model of what users and workers believe. The database has the last word."""

    def __init__(self, world: Any) -> None:
        super().__init__()
        self.world = world
        self.batches: list[str] = []
        self.messages: list[int] = []
        self.workers: list[str] = []
        self.held: dict[str, list[int]] = {}
        self.last_report: dict[str, Any] = {}
        self.deltas: dict[int, list[Any]] = defaultdict(list)
        self.ends: dict[int, tuple[str, str | None]] = {}
        self.numbered: dict[str, list[int]] = {}

    @initialize()
    def empty(self) -> None:
        self.world.sql("TRUNCATE tenants, incarnations, models, hour_totals, hour_tallies CASCADE")
        self.tenants = [self.world.tenant() for _ in range(2)]
        for model in "ab":
            self.start(model, room=3_000)
        for tenant in range(2):
            self.submit(tenant, num_jobs=8, tokens=300, models="ab")
        self.dispatch()
        self.everybody_claims()

    @rule(
        tenant=_pick,
        num_jobs=st.integers(1, 8),
        tokens=st.integers(1, 600),
        models=st.sampled_from(["a", "ab"]),
        level=st.sampled_from([None, "", "1"]),
    )
    def submit(self, tenant: int, num_jobs: int, tokens: int, models: str, level: str | None = None) -> None:
        batch = self.world.batch(
            num_jobs,
            tenant=self.tenants[tenant % 2],
            tokens=tokens,
            models=list(models),
            level=level,
            num_by_judge=num_jobs // 2,
        )
        self.batches.append(batch)

    @rule(model=st.sampled_from("ab"), room=st.integers(0, 3_000))
    def start(self, model: str, room: int) -> None:
        name = f"worker {len(self.held) % 3}"
        worker = self.world.worker(model=model, room_tokens=room, worker=name)
        self.workers.append(worker)
        self.held[worker] = []

    @rule()
    def dispatch(self) -> None:
        self.messages += self.world.dispatch()

    @rule()
    def everybody_claims(self) -> None:
        for incarnation in list(self.workers):
            for shard in self.world.dispatch() + self.messages:
                self._claim(shard, incarnation)

    @precondition(lambda self: self.messages and self.workers)
    @rule(message=_pick, worker=_pick, is_consumed=st.booleans())
    def claim(self, message: int, worker: int, is_consumed: bool) -> None:
        """Delivers a message, which may come twice and to any worker."""
        shard = self.messages[message % len(self.messages)]
        if is_consumed:
            self.messages.remove(shard)
        self._claim(shard, self.workers[worker % len(self.workers)])

    def _claim(self, shard: int, incarnation: str) -> None:
        claimed = self._guard(incarnation, self.world.claim, shard, incarnation)
        for job in claimed.jobs if claimed else ():
            assert job.deltas == self.deltas[job.job_id]
            if job.job_id not in self.held[incarnation]:
                self.held[incarnation].append(job.job_id)

    @precondition(lambda self: self.workers)
    @rule(
        worker=_pick,
        data=st.data(),
        is_draining=st.sampled_from([False, False, False, True]),
        is_answered=st.booleans(),
        idle=st.floats(0, 1),
        others=st.lists(_pick, max_size=3),
    )
    def tick(
        self,
        worker: int,
        data: st.DataObject,
        is_draining: bool,
        is_answered: bool,
        idle: float,
        others: list[int],
    ) -> None:
        """Ticks with work for held jobs, and for `others`, as after a cancelling or a settlement elsewhere."""
        incarnation = self.workers[worker % len(self.workers)]
        held = self.held[incarnation]
        settled, grown, worked, left = (
            [job for job, is_chosen in zip(held, data.draw(_choices), strict=False) if is_chosen] for _ in range(4)
        )
        moved = [job for job in left if job not in settled][:2]
        (own,) = self.world.sql("SELECT model FROM incarnations WHERE id = :id", id=incarnation)
        jobs = [row.id for row in self.world.sql("SELECT id FROM jobs ORDER BY id")]
        worked += [jobs[other % len(jobs)] for other in others if jobs]
        number = self.world.num_ticks[incarnation]
        deltas = {job: [{"tick": number, "by": incarnation}] for job in {*grown, *moved}}
        report = self.world.report(
            incarnation,
            settled=[Settlement(job, usage=_usage(job), **_ENDS[job % len(_ENDS)]) for job in settled],
            deltas=deltas,
            work=[Work(job, data.draw(st.floats(0, 1e12)), KINDS[job % len(KINDS)]) for job in worked],
            handed_on={job: NextStage("b" if own.model == "a" else "a", "f1") for job in moved},
            idle_fraction=idle,
            state=IncarnationState.DRAINING if is_draining else IncarnationState.READY,
        )
        reply = self._guard(incarnation, self.world.send, report)
        if reply is None:
            return
        self.world.num_ticks[incarnation] += 1
        self.last_report[incarnation] = (report, reply)
        for job, made in deltas.items():
            if job not in reply.dropped:
                self.deltas[job] += made
        self.held[incarnation] = [job for job in held if job not in {*reply.dropped, *settled, *moved}]
        if not is_answered:
            self._repeat(incarnation)

    @precondition(lambda self: self.workers)
    @rule(worker=_pick)
    def repeat(self, worker: int) -> None:
        self._repeat(self.workers[worker % len(self.workers)])

    def _repeat(self, incarnation: str) -> None:
        """Sends the same report again, as after a lost reply."""
        if incarnation in self.last_report:
            report, before = self.last_report[incarnation]
            reply = self._guard(incarnation, self.world.send, report)
            assert reply is None or reply.dropped == before.dropped

    @precondition(lambda self: self.workers)
    @rule(worker=_pick)
    def release(self, worker: int) -> None:
        incarnation = self.workers[worker % len(self.workers)]
        self._guard(incarnation, self.world.release, incarnation)
        self._forget(incarnation)

    @precondition(lambda self: self.workers)
    @rule(worker=_pick)
    def lapse(self, worker: int) -> None:
        """Lets a lease lapse without the worker's knowledge, so that its next write is refused."""
        self.world.lapse(self.workers[worker % len(self.workers)])

    @precondition(lambda self: self.workers)
    @rule(worker=_pick)
    def die(self, worker: int) -> None:
        self.lapse(worker)
        self.sweep()

    @rule(comes_back=_choices, is_dispatcher_first=st.booleans(), grows=st.booleans())
    def outage(self, comes_back: list[bool], is_dispatcher_first: bool, grows: bool) -> None:
        """Lets every lease run out during an outage: returning workers continue, and no jobs count as lost."""
        self.sweep()
        num_lost = self._num_lost()
        beaten_at = self._beat(None)
        self.world.sql("UPDATE pulse SET beat_at = beat_at - interval '1 hour'")
        alive = [row.id for row in self.world.sql("SELECT id FROM incarnations WHERE state <> 'ended' ORDER BY id")]
        for incarnation in alive:
            self.world.lapse(incarnation)
        if is_dispatcher_first:
            self._beat(beaten_at)
            self.sweep()
        for number, incarnation in enumerate(alive):
            if comes_back[number % len(comes_back)]:
                held = self.held[incarnation] if grows else []
                deltas = {job: [{"after": "the outage", "by": incarnation}] for job in held}
                reply = self.world.tick(incarnation, deltas=deltas)
                for job, made in deltas.items():
                    if job not in reply.dropped:
                        self.deltas[job] += made
                self.held[incarnation] = [job for job in self.held[incarnation] if job not in reply.dropped]
                self.last_report.pop(incarnation, None)
        if not is_dispatcher_first:
            self._beat(beaten_at)
        self.world.sql("UPDATE pulse SET grace_until = clock_timestamp()")
        self.sweep()
        assert self._num_lost() == num_lost
        self.world.sql("DELETE FROM pulse")

    def _beat(self, beat_before: Any) -> Any:
        with self.world.engine.begin() as connection:
            return beat(connection, lease_s=600, beat_before=beat_before)

    def _num_lost(self) -> int:
        return len(self.world.sql("SELECT 1 FROM attempts WHERE outcome = 'lost'"))

    @rule()
    def sweep(self) -> None:
        sweep(self.world.engine, shard_tokens=self.world.shard_tokens)

    @rule()
    def lose_messages(self) -> None:
        self.messages.clear()
        self._republish()

    @rule(batch=_pick)
    def cancel(self, batch: int) -> None:
        if self.batches:
            with contextlib.suppress(Conflict):
                self.world.cancel(self.batches[batch % len(self.batches)])

    @rule(batch=_pick)
    def expire(self, batch: int) -> None:
        if self.batches:
            late = self.batches[batch % len(self.batches)]
            self.world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=late)

    @rule()
    def finish(self) -> None:
        self.world.finish()

    @rule()
    def tally(self) -> None:
        self.world.tally()

    @rule()
    def fold(self) -> None:
        self.world.fold_costs()

    @rule(batch=_pick)
    def retry(self, batch: int) -> None:
        if self.batches:
            old, new = self.batches[batch % len(self.batches)], f"batch_{len(self.batches):08x}f"
            tenant = self.world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=old)[0].tenant_id
            with contextlib.suppress(Conflict), self.world.engine.begin() as connection:
                self.batches.append(retry(connection, tenant, old, new_batch_id=new))

    @invariant()
    def the_ledger_balances(self) -> None:
        for row in self.world.sql("SELECT id FROM incarnations"):
            self.world.billed(row.id)

    @invariant()
    def a_job_is_settled_once(self) -> None:
        for row in self.world.sql("SELECT id, state, settled_at FROM jobs WHERE state <> 'pending'"):
            end = (row.state, row.settled_at)
            assert self.ends.setdefault(row.id, end) == end

    @invariant()
    def totals_are_those_of_the_rows(self) -> None:
        for batch in self.batches:
            assert self.world.totals(batch) == self.world.counted(batch)

    @invariant()
    def reports_of_totals_are_those_of_the_rows(self) -> None:
        for by in (("strategy", "level"), ("batch", "model", "tenant")):
            with self.world.engine.begin() as connection:
                folded = cost_report(connection, Selection(by))
                rows = cost_report(connection, Selection(by, since=_ALWAYS))
            assert [_exact(row) for row in folded] == [_exact(row) for row in rows]
            for one, other in zip(folded, rows, strict=True):
                assert one.sums.yy == pytest.approx(other.sums.yy, rel=1e-9)
                assert one.sums.xy == pytest.approx(other.sums.xy, rel=1e-9)

    @invariant()
    def hours_are_those_of_the_entries(self) -> None:
        assert self.world.sql("SELECT * FROM worker_hours ORDER BY 1, 2") == self.world.sql(_HOURS)

    @invariant()
    def numbers_never_change(self) -> None:
        for batch in self.batches:
            jobs, before = self.world.numbered(batch), self.numbered.get(batch, [])
            assert jobs[: len(before)] == before
            self.numbered[batch] = jobs

    @invariant()
    def no_job_is_lost(self) -> None:
        for row in self.world.sql(_PLACES):
            assert row.num_shards + row.is_uncut == 1, f"job {row.id}: {row}"
        for row in self.world.sql(_HELD):
            assert row.attempts == [row.holder]

    @invariant()
    def uncut_tokens_are_those_of_the_jobs_that_are_not_cut(self) -> None:
        assert self.world.sql(_MISCOUNTED) == []

    @invariant()
    def a_suspect_runs_alone(self) -> None:
        for row in self.world.sql(_COMPANY):
            assert row.num_shards == 1, f"{row.holder} holds {row.num_shards} shards, and one of them runs alone"

    def teardown(self) -> None:
        """Checks that everything ends, given time and workers."""
        for incarnation in list(self.workers):
            self.world.lapse(incarnation)
        for _ in range(200):
            sweep(self.world.engine, shard_tokens=self.world.shard_tokens)
            if not self.world.sql(
                "SELECT 1 FROM batches WHERE state IN ('in_progress', 'cancelling') OR followed_line IS NOT NULL"
            ):
                break
            self._republish()
            for model in "ab":
                worker = self.world.worker(model=model)
                for shard in {*self.messages, *self.world.dispatch()}:
                    self.world.claim(shard, worker)
                rows = self.world.sql(
                    "SELECT job_id FROM attempts WHERE incarnation_id = :id AND ended_at IS NULL", id=worker
                )
                self.world.tick(worker, settled=[self.world.passed(row.job_id) for row in rows])
                self.world.release(worker)
            self.world.finish()
        assert self.world.sql("SELECT 1 FROM jobs WHERE state = 'pending'") == []
        assert self.world.sql("SELECT 1 FROM shards WHERE state <> 'finished'") == []
        assert self.world.sql("SELECT 1 FROM tree_deltas") == []
        assert self.world.sql("SELECT 1 FROM attempts WHERE ended_at IS NULL") == []
        self.the_ledger_balances()
        self.a_job_is_settled_once()
        self.tally()
        self.totals_are_those_of_the_rows()
        self.fold()
        assert self.world.sql("SELECT 1 FROM late_costs") == []
        assert self.world.sql("SELECT 1 FROM batch_totals WHERE num_costed <> num_completed + num_failed"
                              " + num_expired + num_cancelled") == []  # fmt: skip
        self.reports_of_totals_are_those_of_the_rows()
        for batch in self.batches:
            assert sorted(self.world.numbered(batch)) == sorted(self.world.jobs(batch))

    def _republish(self) -> None:
        with self.world.engine.begin() as connection:
            lost = lost_messages(connection, lambda queues: dict.fromkeys(queues, 0), republish_after_s=0)
        self.messages += [message.shard_id for message in lost]

    def _guard(self, incarnation: str, write: Any, *arguments: Any) -> Any:
        """Writes as a worker does, which stops at once if it is refused."""
        try:
            return write(*arguments)
        except LeaseLost:
            self._forget(incarnation)
            return None

    def _forget(self, incarnation: str) -> None:
        if incarnation in self.workers:
            self.workers.remove(incarnation)


def _usage(job: int) -> Usage:
    return Usage(job, job + 1, job // 2, 0, job // 3, judge_tokens=job // 4)


def _exact(row: CostRow) -> tuple[Any, ...]:
    """Returns what of a row must be the same to the last digit."""
    counts = (row.num_jobs, row.num_settled, row.num_passed, row.num_oracle, row.accuracy, row.completion_tokens)
    judges = (row.num_by_judge, row.num_passed_by_judge, row.num_compared, row.agreement)
    return (row.group, *counts, *judges, row.direct_nanodollars, row.loaded_nanodollars, row.sums.num)


def test_any_order_of_events_keeps_the_books_and_the_jobs(world: Any, engine: Engine) -> None:
    watch_moves(engine)
    run_state_machine_as_test(
        lambda: Fleet(world),
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking against a database takes minutes
        ),
    )
    assert moves(engine) <= LEGAL
