"""The situation of a model is what its batches, workers and prices say."""

from __future__ import annotations

from typing import Any

import pytest
from rows_read import rows_read
from sqlalchemy import text

from ponder.errors import NotFound
from ponder.fleet.backlog import _BACKLOG, LiveWorkers, backlog, demand_of, slack_s
from ponder.fleet.fluid import Demand, Group
from ponder.fleet.problem import Situation
from ponder.fleet.situation import _INTERACTIVE, _INTERRUPTED, _LOADED, situations
from ponder.jobs.estimating.observe import fold_observations
from ponder.jobs.tick_report import WorkerSample
from ponder.jobs.worker_sample import keep


def _situation(world: Any, model: str | None = "demo") -> Situation:
    with world.engine.connect() as connection:
        (found,) = situations(connection, model)
    return found


def _backlog(world: Any) -> dict[str, int]:
    tokens: dict[str, int] = {}
    with world.engine.connect() as connection:
        for item in backlog(connection):
            tokens[item.lane] = tokens.get(item.lane, 0) + item.tokens
    return tokens


def _measured(world: Any, **machine: Any) -> str:
    """Returns a worker that settled two jobs."""
    worker: str = world.worker(**machine)
    world.batch(2)
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[world.passed(job) for job in jobs])
    world.finish()
    return worker


def test_the_backlog_is_everything_that_is_not_settled(world: Any) -> None:
    world.batch(1_000, tokens=100)
    world.batch(10, tokens=10, lane="interactive")
    assert _backlog(world) == {"batch": 100_000, "interactive": 100}
    worker = world.worker(room_tokens=2_000)
    job, *_ = world.claim_all(worker)[::-1]
    assert _backlog(world) == {"batch": 100_000, "interactive": 100}
    world.tick(worker, work=world.work(job), settled=[world.passed(job)])
    assert sum(_backlog(world).values()) == 100_000


def test_it_shrinks_as_jobs_settle_and_grows_by_what_is_handed_back(world: Any) -> None:
    batch = world.batch(30, tokens=100)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[world.passed(job) for job in jobs[:10]])
    assert _backlog(world) == {"batch": 2_000}
    world.release(worker)
    assert _backlog(world) == {"batch": 2_000}
    world.cancel(batch)
    assert _backlog(world) == {}


def test_work_that_may_not_run_wants_no_worker(world: Any) -> None:
    batch = world.batch(5, tokens=100)
    world.worker()
    assert sum(load.tokens for load in _situation(world).loads) == 500
    world.sql("UPDATE batches SET paused_at = clock_timestamp() WHERE id = :id", id=batch)
    assert _situation(world).loads == ()
    assert _backlog(world) == {"batch": 500}


def test_loads_are_never_due_later_than_their_batch(world: Any) -> None:
    world.batch(1, expires_in_s=10_000)
    world.batch(1, expires_in_s=10_001)
    world.batch(1, expires_in_s=50_000)
    loads = _situation(world).loads
    assert [load.tokens for load in loads] == [200, 100]
    assert 9_000 < loads[0].due_in_s <= 10_000
    assert 45_000 < loads[1].due_in_s <= 50_000


def test_offers_are_the_machines_with_a_price_on_which_jobs_were_timed(world: Any) -> None:
    world.worker(machine="cpu", market="on_demand")
    assert _situation(world).offers == ()
    worker = _measured(world, machine="h200", market="spot")
    spot, on_demand = sorted(_situation(world).offers, key=lambda offer: offer.nanodollars_per_hour)
    assert (spot.machine, on_demand.machine, spot.market, on_demand.market) == ("h200", "h200", "spot", "on_demand")
    (seconds,) = world.sql(
        "SELECT CAST(sum(nanodollars) * 3600.0 / min(nanodollars_per_hour) AS float8) AS spent FROM ledger_entries"
        " JOIN incarnations ON incarnations.id = incarnation_id WHERE incarnation_id = :id AND job_id IS NOT NULL",
        id=worker,
    )
    assert spot.tokens_per_s == pytest.approx(2 * (5 + 7) / seconds.spent, rel=1e-6)
    assert (on_demand.interruptions_per_hour, spot.interruptions_per_hour) == (0.0, pytest.approx(0.1, abs=0.01))


def test_interruptions_and_loading_are_those_of_former_workers(world: Any) -> None:
    workers = [_measured(world, machine="h200", market="spot") for _ in range(3)]
    for worker in workers:
        world.sql(
            "UPDATE incarnations SET started_at = started_at - interval '5 hours',"
            " billed_until = billed_until - interval '1 second' WHERE id = :id",
            id=worker,
        )
        world.sql(
            "UPDATE ledger_entries SET from_at = until_at - interval '40 seconds'"
            " WHERE incarnation_id = :id AND kind = 'loading'",
            id=worker,
        )
    world.release(workers[0])
    world.sql("UPDATE incarnations SET end_reason = 'a request to drain' WHERE id = :id", id=workers[0])
    world.release(workers[1], reason="aws notice, 118 s before")
    spot = next(offer for offer in _situation(world).offers if offer.market == "spot")
    assert spot.loading_s == pytest.approx(40, abs=0.1)
    assert spot.interruptions_per_hour == pytest.approx((1 + 1) / (10 + 15), rel=0.01)


@pytest.mark.parametrize(
    ("reason", "fleet_row", "is_interruption"),
    [
        ("aws notice, 118 s before", None, True),
        ("gcp maintenance notice, 60 s before", None, True),
        ("its lease expired", None, True),
        ("its lease expired", "ordered_at", True),
        ("SIGTERM", None, False),
        ("aws rebalance recommendation", None, False),
        ("its lease expired", "stop_at", False),
        ("aws notice, 118 s before", "leave_by", False),
    ],
)
def test_only_what_nobody_asked_for_is_an_interruption(
    world: Any, reason: str, fleet_row: str | None, *, is_interruption: bool
) -> None:
    worker = _measured(world, machine="h200", market="spot")
    if fleet_row is not None:
        world.sql(
            f"INSERT INTO fleet_workers (id, model, machine, market, worker, nanodollars_per_hour, {fleet_row})"
            " SELECT 'fw_1', model, machine, market, worker, 0, clock_timestamp() FROM incarnations WHERE id = :id",
            id=worker,
        )
    world.release(worker, reason=reason)
    world.batch(1)
    spot = next(offer for offer in _situation(world).offers if offer.market == "spot")
    assert spot.interruptions_per_hour == pytest.approx(0.2 if is_interruption else 0.1, rel=0.05)


def test_workers_that_load_are_counted_with_the_time_that_they_still_need(world: Any) -> None:
    world.batch(1)
    world.worker(machine="h200", market="spot")
    world.sql("UPDATE ledger_entries SET from_at = until_at - interval '40 seconds' WHERE kind = 'loading'")
    world.loading_worker(machine="h200", market="spot")
    (running,) = _situation(world).running
    assert (running.num_workers, running.num_loading) == (2, 1)
    assert 35 < running.ready_in_s <= 40.1


def test_occupancy_is_known_once_it_was_sampled_for_a_while(world: Any) -> None:
    worker = world.worker()
    sample = WorkerSample.of({}, {"kv_cache_usage_perc": 0.9}, 20.0)
    for age_s in (5, 25):
        with world.engine.begin() as connection:
            at = connection.execute(text("SELECT clock_timestamp() - :age * interval '1 second'"), {"age": age_s})
            keep(connection, worker, at.scalar_one(), sample)
    assert _situation(world).occupancy is None
    with world.engine.begin() as connection:
        at = connection.execute(text("SELECT clock_timestamp() - interval '45 seconds'"))
        keep(connection, worker, at.scalar_one(), sample)
    assert _situation(world).occupancy == pytest.approx(0.9)


def test_the_interactive_median_needs_load_in_most_of_the_day(world: Any) -> None:
    tenant = world.tenant()
    for number in range(80):
        batch = world.batch(1, lane="interactive", tenant=tenant)
        world.sql(
            "UPDATE batches SET created_at = clock_timestamp() - :age * interval '10 minutes' WHERE id = :id",
            age=number + 0.5,
            id=batch,
        )
        if number == 70:
            _total(world)
            assert _situation(world).interactive_tokens_per_s == 0
    _total(world)
    assert _situation(world).interactive_tokens_per_s == pytest.approx(3 * 100 / 600)


def _total(world: Any) -> None:
    """Lets every batch have taken three seconds of an engine, which does a hundred tokens in one, for long prompts."""
    world.sql(
        """
        INSERT INTO batch_experience (batch_id, fingerprint, strategy, level, sums)
        SELECT id, 'f1', '', '', '{"time.cpu.n": 1, "time.cpu.x": 10000, "time.cpu.y": 3}' FROM batches
        ON CONFLICT DO NOTHING
        """
    )
    world.sql(
        """
        INSERT INTO experience (tenant_id, fingerprint, strategy, level, sums)
        SELECT id, 'f1', '', '', '{"time.cpu.n": 1, "time.cpu.x": 1000, "time.cpu.y": 10}' FROM tenants
        ON CONFLICT DO NOTHING
        """
    )


def test_interactive_load_is_the_same_before_and_after_observations_are_folded(world: Any) -> None:
    worker = world.worker(machine="h200", market="spot")
    world.batch(2, lane="interactive")
    world.batch(1)
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[world.passed(job) for job in jobs])
    with world.engine.begin() as connection:
        before = connection.execute(_INTERACTIVE).all()
        fold_observations(connection)
        after = connection.execute(_INTERACTIVE).all()
    (row,) = before
    assert (row.fingerprint, row.machine) == ("f1", "h200")
    assert row.seconds > 0
    assert [(one.bucket, one.machine, one.seconds) for one in after] == [(row.bucket, row.machine, row.seconds)]


def test_a_model_that_nobody_knows_is_refused(world: Any) -> None:
    with world.engine.connect() as connection, pytest.raises(NotFound, match="no model nobody"):
        situations(connection, "nobody")
    world.lapse(world.worker())
    assert _situation(world, "demo").loads == ()


def test_the_cost_of_asking_does_not_grow_with_waiting_jobs(world: Any) -> None:
    """Reads no job that waits: with ten times as many, the plan of Postgres costs the same."""

    world.batch(2_000)
    few = _cost(world, _BACKLOG, model=None)
    world.batch(20_000)
    assert _cost(world, _BACKLOG, model=None) - few <= 20


def test_the_cost_of_loading_times_does_not_grow_with_the_ledger(world: Any) -> None:
    worker = world.worker(machine="h200", market="spot")

    def cost_with_entries(num: int) -> float:
        world.sql(
            "INSERT INTO ledger_entries (incarnation_id, kind, nanodollars, from_at, until_at)"
            " SELECT :id, 'idle', 1, clock_timestamp(), clock_timestamp() FROM generate_series(1, :num)",
            id=worker,
            num=num,
        )
        return _cost(world, _LOADED, fingerprints=["f1"])

    few = cost_with_entries(2_000)
    assert cost_with_entries(20_000) - few <= 20


def test_the_cost_of_the_interactive_median_does_not_grow_with_older_batches(world: Any) -> None:
    batch = world.batch(1, lane="interactive")

    def cost_with_batches(num: int, first: int) -> float:
        row = "jsonb_build_object('id', 'old_' || n, 'created_at', clock_timestamp() - interval '2 days')"
        world.sql(
            f"INSERT INTO batches SELECT (jsonb_populate_record(batches, {row})).* FROM batches,"
            " generate_series(CAST(:first AS int), CAST(:last AS int)) AS n WHERE id = :id",
            id=batch,
            first=first,
            last=first + num - 1,
        )
        _total(world)
        return _cost(world, _INTERACTIVE)

    few = cost_with_batches(1_000, 0)
    assert cost_with_batches(10_000, 1_000) - few <= 20


def test_the_cost_of_interruptions_does_not_grow_with_workers_of_more_than_a_month_ago(world: Any) -> None:
    worker = world.worker(machine="h200", market="spot")

    def cost_with_ended(num: int, first: int) -> float:
        row = (
            "jsonb_build_object('id', 'old_' || n, 'state', 'ended', 'end_reason', 'its lease expired',"
            " 'started_at', clock_timestamp() - interval '61 days', 'ended_at', clock_timestamp() - interval '60 days',"
            " 'billed_until', clock_timestamp() - interval '60 days')"
        )
        world.sql(
            f"INSERT INTO incarnations SELECT (jsonb_populate_record(incarnations, {row})).* FROM incarnations,"
            " generate_series(CAST(:first AS int), CAST(:last AS int)) AS n WHERE id = :id",
            id=worker,
            first=first,
            last=first + num - 1,
        )
        return _cost(world, _INTERRUPTED)

    few = cost_with_ended(1_000, 0)
    assert cost_with_ended(10_000, 1_000) - few <= 20


def _cost(world: Any, query: Any, **values: Any) -> float:
    """Returns the number of rows that Postgres reads to answer the query."""

    def ask() -> None:
        with world.engine.connect() as connection:
            connection.execute(query, values).all()

    return rows_read(world.engine, ask)


def test_slack_is_what_live_workers_have_left(world: Any) -> None:
    world.batch(10, tokens=100, expires_in_s=3_600)
    _measured(world)
    world.batch(10, tokens=100, expires_in_s=3_600)
    with world.engine.connect() as connection:
        workers, work = LiveWorkers.read(connection), backlog(connection)
    rate = workers.tokens_per_s(("demo", "f1"))
    assert rate is not None
    assert workers.seconds(work) == pytest.approx(demand_of(work).total / rate)
    found = slack_s(demand_of(work), rate)
    assert found is not None
    assert found == pytest.approx(3_600 - demand_of(work).total / rate, abs=5)


def test_slack_looks_at_every_deadline() -> None:
    demand = Demand.of([(100.0, 500), (1_000.0, 500)])
    assert slack_s(demand, 10.0) == 50.0
    assert slack_s(demand, 1.0) == -400.0
    assert slack_s(demand, 0.0) == float("-inf")
    assert slack_s(Demand.of([]), 1.0) is None


def test_work_is_finished_when_groups_have_made_it() -> None:
    demand = Demand.of([(100.0, 1_000)])
    assert demand.finished_in_s([Group(1, 10.0)]) == 100.0
    assert demand.finished_in_s([Group(1, 10.0), Group(2, 10.0, ready_in_s=40.0)]) == 60.0
    assert demand.finished_in_s([Group(1, 10.0, until_s=50.0)]) is None
    assert demand.late_tokens([Group(1, 10.0, ready_in_s=40.0)]) == pytest.approx(400)
