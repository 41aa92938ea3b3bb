from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ponder.domain.state import JobState, Verdict
from ponder.jobs.tick import Settlement, Usage, Work
from ponder.ledger.cost_report import CostRow, cost_report, unassigned
from ponder.ledger.reporting import Selection


def _report(world: Any, *by: Any, tenant: str | None = None, batches: list[str] | None = None) -> list[CostRow]:
    with world.engine.begin() as connection:
        return cost_report(connection, Selection(by, tenant, None if batches is None else tuple(batches)))


def _judged(row: CostRow) -> tuple[object, ...]:
    return (row.group, row.num_passed, row.num_by_judge, row.num_passed_by_judge, row.num_compared, row.agreement)


def _wrong(job: int) -> Settlement:
    usage = Usage(completion_tokens=3)
    return Settlement(job, JobState.COMPLETED, verdict=Verdict.FAILED, answer="3", usage=usage)


@pytest.fixture
def spent(world: Any) -> dict[str, str]:
    """A tenant with two batches on a spot worker, and one with a batch on an on-demand worker. Two of six are wrong."""
    first, second = world.tenant(), world.tenant()
    batches = {
        "easy": world.batch(3, tenant=first, strategy="direct", level="1"),
        "hard": world.batch(2, tenant=first, strategy="beam_search", level="2"),
        "other": world.batch(1, tenant=second, models=["big"]),
    }
    spot, on_demand = world.worker(), world.worker(model="big", market="on_demand", machine="cpu")
    for worker in (spot, on_demand):
        jobs = world.claim_all(worker)
        world.tick(worker, work=[Work(job, 1.0 + job) for job in jobs], idle_fraction=0.5)
        wrong = jobs[1::2]
        settled = [_wrong(job) if job in wrong else world.passed(job) for job in jobs]
        world.tick(worker, work=world.work(*jobs), settled=settled)
    return {**batches, "first": first, "second": second, "spot": spot, "on_demand": on_demand}


def test_loaded_cost_is_everything_that_was_billed(world: Any, spent: dict[str, str]) -> None:
    (row,) = _report(world)
    billed = world.billed(spent["spot"]) + world.billed(spent["on_demand"])
    assert row.loaded_nanodollars == pytest.approx(billed, abs=1)
    direct = world.kinds(spent["spot"])["work"] + world.kinds(spent["on_demand"])["work"]
    assert row.direct_nanodollars == direct < row.loaded_nanodollars
    assert (row.num_jobs, row.num_settled, row.num_passed) == (6, 6, 4)
    assert row.accuracy == pytest.approx(4 / 6)
    assert row.completion_tokens == 4 * 7 + 2 * 3
    assert row.tokens_per_job == pytest.approx(34 / 6)
    assert row.nanodollars_per_job == pytest.approx(billed / 6, abs=1)
    assert row.cost_per_successful_task == pytest.approx(billed / 4, abs=1)


@pytest.mark.parametrize(
    "by", [["strategy"], ["level", "strategy"], ["model"], ["batch"], ["market"], ["machine", "level"], ["tenant"]]
)
def test_groups_add_up_to_the_whole(world: Any, spent: dict[str, str], by: list[Any]) -> None:
    (whole,) = _report(world)
    groups = _report(world, *by)
    assert len(groups) > 1
    assert sum(row.num_jobs for row in groups) == whole.num_jobs
    assert sum(row.num_passed for row in groups) == whole.num_passed
    assert sum(row.direct_nanodollars for row in groups) == whole.direct_nanodollars
    assert sum(row.loaded_nanodollars for row in groups) == pytest.approx(whole.loaded_nanodollars, abs=len(groups))
    assert all(row.group.keys() == set(by) for row in groups)


def test_a_tenant_sees_its_own_and_a_batch_can_be_picked(world: Any, spent: dict[str, str]) -> None:
    (row,) = _report(world, "batch", "level", tenant=spent["second"])
    assert row.group == {"batch": spent["other"], "level": None}
    (row,) = _report(world, "strategy", tenant=spent["first"], batches=[spent["hard"]])
    assert (row.group, row.num_jobs) == ({"strategy": "beam_search"}, 2)
    assert _report(world, tenant=spent["second"], batches=[spent["hard"]]) == []


def test_work_on_two_markets_is_billed_where_it_arose(world: Any) -> None:
    world.batch()
    spot = world.worker()
    (job,) = world.claim_all(spot)
    world.tick(spot, work=world.work(job))
    world.release(spot)
    safe = world.worker(market="on_demand")
    world.claim_all(safe)
    world.tick(safe, work=world.work(job), settled=[world.passed(job)])

    rows = {row.group["market"]: row for row in _report(world, "market")}
    assert (rows["spot"].num_jobs, rows["on_demand"].num_jobs) == (0, 1)
    assert rows["spot"].direct_nanodollars == world.kinds(spot)["work"]
    assert rows["on_demand"].direct_nanodollars == world.kinds(safe)["work"]
    assert rows["spot"].cost_per_successful_task is None


def test_jobs_whose_search_was_told_the_reference_are_counted_in_every_report(world: Any) -> None:
    batch = world.batch(3, num_oracle=2)
    (row,) = _report(world, "strategy", batches=[batch])
    assert (row.num_jobs, row.num_oracle) == (3, 2)
    assert [row.num_oracle for row in world.sql("SELECT num_oracle FROM cost_per_successful_task")] == [2]


def test_successes_that_a_model_judged_are_kept_apart_with_how_well_it_agrees_with_the_reference(world: Any) -> None:
    world.batch(6, num_by_judge=5, level="1")
    world.batch(1, level="2")
    worker = world.worker()
    jobs = world.claim_all(worker)
    judged = [
        replace(world.passed(jobs[0]), checked=Verdict.PASSED),
        replace(world.passed(jobs[1]), checked=Verdict.FAILED),
        replace(world.passed(jobs[2]), checked=Verdict.UNVERIFIED),
        replace(_wrong(jobs[3]), checked=Verdict.FAILED),
        replace(world.passed(jobs[4]), verdict=Verdict.UNVERIFIED, checked=Verdict.PASSED),
    ]
    world.tick(worker, work=world.work(*jobs), settled=[*judged, *map(world.passed, jobs[5:])])
    for by in (("level",), ("level", "day"), ("level", "market", "worker_model")):
        one, other = _report(world, *by)
        assert (one.num_passed, one.num_by_judge, one.num_passed_by_judge) == (4, 5, 3)
        assert (one.num_compared, one.agreement) == (3, pytest.approx(2 / 3))
        assert (other.num_passed, other.num_by_judge, other.num_passed_by_judge) == (1, 0, 0)
        assert (other.num_compared, other.agreement) == (0, None)
    columns = "num_by_judge, num_passed_by_judge, num_compared, num_agreed"
    (row,) = world.sql(f"SELECT {columns} FROM cost_per_successful_task WHERE level = '1'")
    assert tuple(row) == (5, 3, 3, 2)
    before = [_judged(row) for row in _report(world, "level")]
    world.tally()
    world.fold_costs()
    assert world.sql("SELECT sum(num_agreed) AS num FROM cost_totals")[0].num == 2
    assert [_judged(row) for row in _report(world, "level")] == before


def test_a_guess_that_missed_is_a_kind_of_its_own_and_part_of_what_the_task_cost(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    world.tick(worker, work=[Work(job, 3.0), Work(job, 1.0, "speculated")], settled=[world.passed(job)])
    kinds = world.kinds(worker)
    assert kinds["speculated"] > 0
    assert kinds["work"] == pytest.approx(3 * kinds["speculated"], abs=3)
    (row,) = _report(world)
    assert row.direct_nanodollars == kinds["work"] + kinds["speculated"]
    assert row.cost_per_successful_task == pytest.approx(world.billed(worker), abs=1)


def test_nothing_passed_means_no_price_of_success(world: Any) -> None:
    world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    failed = Settlement(second, JobState.FAILED, error={"code": "x", "message": "x"})
    world.tick(worker, work=world.work(first, second), settled=[_wrong(first), failed])
    (row,) = _report(world)
    assert (row.accuracy, row.cost_per_successful_task) == (0.0, None)
    assert row.nanodollars_per_job > 0


def test_the_sql_view_says_the_same_as_the_report(world: Any, spent: dict[str, str]) -> None:
    rows = world.sql("SELECT * FROM cost_per_successful_task")
    reported = {tuple(row.group.values()): row for row in _report(world, "tenant", "model", "strategy", "level")}
    assert len(rows) == len(reported) == 3
    for row in rows:
        same = reported[row.tenant_id, row.model, row.strategy, row.level]
        assert (row.num_jobs, row.num_settled, row.num_passed) == (same.num_jobs, same.num_settled, same.num_passed)
        assert float(row.loaded_nanodollars) == pytest.approx(same.loaded_nanodollars, abs=1)
        assert float(row.cost_per_successful_task) == pytest.approx(same.cost_per_successful_task)


def test_unassigned_overhead_and_the_loaded_cost_of_all_jobs_add_up_to_the_bill(
    world: Any, spent: dict[str, str]
) -> None:
    idle = world.worker(worker="nobody asked for it")
    world.tick(idle)
    with world.engine.begin() as connection:
        rest = unassigned(connection)
    assert rest == world.billed(idle) > 0
    (row,) = _report(world)
    billed = sum(world.billed(worker) for worker in (spent["spot"], spent["on_demand"], idle))
    assert row.loaded_nanodollars + rest == pytest.approx(billed, abs=1)
