"""The projection of a batch in progress."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.state import JobState
from ponder.jobs.estimating.observe import fold_observations
from ponder.jobs.estimating.project import Progress, project
from ponder.jobs.tick import Settlement
from ponder.ledger.spending import allowances


def _batch(desk: Any, num_jobs: int = 40) -> str:
    return str(desk.batch(*(desk.line(f"row-{number}") for number in range(num_jobs))))


def _settle(world: Any, worker: str, num_jobs: int) -> None:
    """Claims everything and settles so many jobs."""
    jobs = world.claim_all(worker) or [
        row.job_id
        for row in world.sql("SELECT job_id FROM attempts WHERE incarnation_id = :id AND ended_at IS NULL", id=worker)
    ]
    world.tick(worker, settled=[world.passed(job) for job in jobs[:num_jobs]], work=world.work(*jobs[:num_jobs]))


def _projection(world: Any, batch: str, nanodollars: int | None = None, num_pilot: int = 0) -> Any:
    """Projects the batch, with a budget of its own if `nanodollars` says so."""
    world.sql("UPDATE batches SET limit_nanodollars = :limit WHERE id = :id", limit=nanodollars, id=batch)
    row = world.sql("SELECT * FROM batches WHERE id = :id", id=batch)[0]
    with world.engine.connect() as connection:
        allowance = allowances(connection, [batch]).get(batch)
        limits = () if allowance is None else allowance.limits
        progress = Progress(batch, row.tenant_id, row.num_lines, limits, world.totals(batch), num_pilot)
        return project(connection, progress)


@pytest.fixture
def worker(world: Any) -> str:
    return str(world.worker(fingerprint="f0"))


def test_the_total_is_what_is_spent_and_what_the_rest_will_cost_by_the_batch_s_own_jobs(
    desk: Any, world: Any, worker: str
) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    found = _projection(world, batch)
    spent, total = found["spent_nanodollars"], found["total_nanodollars"]
    assert spent == world.totals(batch).direct_nanodollars
    assert total["estimate"] == pytest.approx(2 * spent, rel=0.1)
    assert spent <= total["low"] < total["estimate"] < total["high"]
    assert total["rests_on"] == "20 settled jobs of this batch"


def test_while_only_the_pilot_has_run_the_interval_reaches_down_to_what_full_workers_need(
    desk: Any, world: Any, worker: str
) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    whole, piloted = (_projection(world, batch, num_pilot=number) for number in (0, 20))
    spent = whole["spent_nanodollars"]
    for name, settled in (("total_nanodollars", spent), ("seconds_left", 0)):
        assert piloted[name]["estimate"] == whole[name]["estimate"]
        assert piloted[name]["high"] == whole[name]["high"]
        assert piloted[name]["low"] - settled <= 0.51 * (piloted[name]["estimate"] - settled)
        assert whole[name]["low"] - settled > 0.55 * (whole[name]["estimate"] - settled)


def test_folding_changes_nothing(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    _settle(world, worker, 10)
    before = _projection(world, batch)
    for _ in range(2):
        with world.engine.begin() as connection:
            fold_observations(connection)
        assert _projection(world, batch) == before
    assert len(world.sql("SELECT 1 FROM batch_experience")) == 1


def test_a_tenant_s_earlier_batches_tell_about_one_that_has_not_begun(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    assert _projection(world, batch)["total_nanodollars"]["estimate"] is None
    _settle(world, worker, 40)
    found = _projection(world, _batch(desk))
    spent = world.totals(batch).direct_nanodollars
    assert found["total_nanodollars"]["low"] < spent < found["total_nanodollars"]["high"]
    assert found["total_nanodollars"]["rests_on"] == "earlier jobs"


def test_the_time_left_is_that_of_the_workers_by_the_share_that_they_give_to_the_batch(
    desk: Any, world: Any, worker: str
) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    alone = _projection(world, batch)["seconds_left"]
    assert alone["rests_on"] == "1 worker for this batch alone"
    _batch(desk)
    world.claim_all(worker)
    shared = _projection(world, batch)["seconds_left"]
    assert shared["estimate"] == pytest.approx(3 * alone["estimate"], rel=0.01), "40 jobs of the other batch run"
    assert shared["rests_on"] == "33% of 1 worker"
    world.release(worker)
    gone = _projection(world, batch)["seconds_left"]
    assert (gone["estimate"], gone["rests_on"]) == (None, "no worker of the model is alive")


def test_it_says_whether_the_dollars_run_out_and_when(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    assert _projection(world, batch)["budget"] is None
    spent = world.totals(batch).direct_nanodollars
    enough, close, little, none = (
        _projection(world, batch, round(factor * spent))["budget"] for factor in (10, 2, 1.3, 0.9)
    )
    assert (enough["runs_out"], close["runs_out"], little["runs_out"]) == ("no", "maybe", "yes")
    assert enough["seconds"]["estimate"] is None
    rate = world.sql("SELECT nanodollars_per_hour FROM incarnations")[0][0] / 3600
    assert little["seconds"]["estimate"] == pytest.approx(0.3 * spent / rate, rel=0.01, abs=0.002)
    assert little["seconds"]["low"] <= little["seconds"]["estimate"] <= little["seconds"]["high"]
    assert none["seconds"]["estimate"] == 0


def test_of_all_budgets_that_it_draws_on_it_names_the_one_that_runs_out_first(
    desk: Any, world: Any, worker: str
) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    totals = world.totals(batch)
    tenant = world.sql("SELECT tenant_id FROM batches")[0][0]

    def outlook(period: str, tokens: int | None = None, nanodollars: int | None = None) -> Any:
        world.limit(tenant, None, period, tokens=tokens, nanodollars=nanodollars)
        return _projection(world, batch, round(1.5 * totals.direct_nanodollars))["budget"]

    own = _projection(world, batch, round(1.5 * totals.direct_nanodollars))["budget"]
    assert (own["budget"], own["measure"], own["runs_out"]) == ("batch", "dollars", "yes")
    later = outlook("month", nanodollars=round(1.8 * totals.direct_nanodollars))
    assert later == own, "the tenant's dollars last longer than the batch's"
    first = outlook("month", tokens=round(1.2 * totals.generated_tokens))
    assert (first["budget"], first["measure"], first["runs_out"]) == ("tenant_month", "tokens", "yes")
    assert first["seconds"]["estimate"] < own["seconds"]["estimate"]


def test_a_budget_that_is_renewed_before_it_runs_out_lasts(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    tenant = world.sql("SELECT tenant_id FROM batches")[0][0]
    world.sql("UPDATE incarnations SET nanodollars_per_hour = 1")
    world.limit(tenant, None, "day", tokens=None, nanodollars=world.totals(batch).direct_nanodollars + 1_000)
    assert _projection(world, batch)["budget"] == {
        "budget": "tenant_day",
        "measure": "dollars",
        "runs_out": "no",
        "seconds": {"estimate": None, "low": None, "high": None},
    }


def test_failed_jobs_are_not_waited_for_again(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    _settle(world, worker, 20)
    more = _projection(world, batch)["seconds_left"]["estimate"]
    held = world.sql("SELECT job_id FROM attempts WHERE ended_at IS NULL ORDER BY job_id")
    error = {"code": "c", "message": "m"}
    world.tick(worker, settled=[Settlement(row.job_id, JobState.FAILED, error=error) for row in held[:10]])
    assert _projection(world, batch)["seconds_left"]["estimate"] == pytest.approx(more / 2, rel=0.05)


def test_an_older_batch_and_one_of_which_nothing_is_left_have_none(desk: Any, world: Any, worker: str) -> None:
    assert _projection(world, world.batch(3)) is None
    batch = _batch(desk, 2)
    _settle(world, worker, 2)
    assert _projection(world, batch) is None
