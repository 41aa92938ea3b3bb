"""A job of a cascade goes on from one model's workers to the next one's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ponder.api.job_object import job_object
from ponder.domain.batch.submission import Change, ChangedOptions
from ponder.domain.state import JobState
from ponder.errors import Conflict
from ponder.jobs.batch.change import change
from ponder.jobs.batch.retry import retry
from ponder.jobs.dispatching.dispatcher_status import record
from ponder.jobs.dispatching.sweep import sweep
from ponder.jobs.tick import NextStage, Settlement, Usage
from ponder.ledger.cost_report import cost_report
from ponder.ledger.reporting import QUALITY, Selection, report, waste_report
from ponder.ledger.spending import allowances

LARGE = NextStage("large", "f1")


def _ended(*ids: int) -> dict[str, Any]:
    """The last delta of a first stage."""
    decisions = {"accept": {"accepted": False, "by": "agreement", "agreement": 0.5, "threshold": 0.75}}
    nodes = [{"node": 1, "ids": list(ids)}]
    return {"step": 0, "nodes": nodes, "result": {"tree": {"nodes": [], "decisions": decisions}}, "next": 1}


def _begun(world: Any, num_jobs: int = 2, **options: Any) -> tuple[str, str, list[int]]:
    batch = world.batch(num_jobs, stages=("demo", "large"), **options)
    worker = world.worker(room_tokens=10_000)
    return batch, worker, world.claim_all(worker)


def _outcomes(world: Any) -> list[str | None]:
    return [row.outcome for row in world.sql("SELECT outcome FROM attempts ORDER BY id")]


def test_the_next_models_worker_gets_the_job_with_everything_that_was_made(world: Any) -> None:
    batch, worker, (first, second) = _begun(world)
    world.tick(worker, deltas={first: [{"stage": 0, "nodes": [{"node": 1, "ids": [5]}]}]})
    world.tick(worker, deltas={first: [_ended(6, 7)]}, handed_on={first: LARGE}, work=world.work(first, second))

    assert _outcomes(world) == ["handed_on", None]
    other = world.worker(model="large")
    (shard,) = world.dispatch()
    assert world.claim(shard, worker) is None, "it serves another model"
    claimed = world.claim(shard, other)
    (job,) = claimed.jobs
    assert job.job_id == first
    assert [delta["nodes"][0]["ids"] for delta in job.deltas] == [[5], [6, 7]]

    usage = Usage(completion_tokens=10)
    passed = world.passed(first)
    world.tick(other, settled=[Settlement(first, passed.state, passed.verdict, usage=usage, tree={"stages": []})])
    world.tick(worker, settled=[world.passed(second)])
    world.finish()
    assert world.state(batch) == "completed"
    assert _outcomes(world) == ["handed_on", "settled", "settled"]
    assert world.totals(batch) == world.counted(batch)
    assert world.totals(batch).generated_tokens == 10 + 7
    for incarnation in (worker, other):
        assert "work" in world.kinds(worker)
        world.billed(incarnation)


def test_a_lost_reply_hands_a_job_on_once(world: Any) -> None:
    _, worker, (first, _) = _begun(world)
    report = world.report(worker, deltas={first: [_ended(6)]}, handed_on={first: LARGE})
    assert world.send(report).dropped == world.send(report).dropped == ()
    shards = world.sql("SELECT model, job_ids FROM shards WHERE state <> 'finished' ORDER BY id")
    assert [tuple(shard) for shard in shards] == [("demo", [2 if first == 1 else first + 1]), ("large", [first])]


@pytest.mark.parametrize("end", ["release", "lapse"])
def test_what_becomes_of_the_first_worker_does_not_touch_jobs_that_it_handed_on(world: Any, end: str) -> None:
    _, worker, (first, second) = _begun(world)
    world.tick(worker, deltas={first: [_ended(6)]}, handed_on={first: LARGE})
    getattr(world, end)(worker)
    sweep(world.engine, shard_tokens=1_000)
    shards = world.sql("SELECT model, job_ids FROM shards WHERE state = 'queued' ORDER BY model")
    assert [tuple(shard) for shard in shards] == [("demo", [second]), ("large", [first])]
    assert world.num_lost(first) == 0


def test_a_later_stage_that_loses_its_worker_stays_with_its_model(world: Any) -> None:
    _, worker, jobs = _begun(world, num_jobs=1)
    world.tick(worker, deltas={jobs[0]: [_ended(6)]}, handed_on={jobs[0]: LARGE})
    for number in range(2):
        other = world.worker(model="large")
        assert world.claim_all(other) == jobs
        world.lapse(other)
        sweep(world.engine, shard_tokens=1_000)
        (shard,) = world.sql("SELECT model, runs_alone FROM shards WHERE state = 'queued'")
        assert tuple(shard) == ("large", number == 1), "being handed on counts no loss"


def test_a_worker_of_both_models_gets_its_own_job_only_after_it_has_let_it_go(world: Any) -> None:
    batch = world.batch(1, stages=("demo", "demo"))
    worker = world.worker(room_tokens=10_000)
    jobs = world.claim_all(worker)
    world.tick(worker, deltas={jobs[0]: [_ended(6)]}, handed_on={jobs[0]: NextStage("demo", "f1")})
    (shard,) = world.dispatch()
    assert world.claim(shard, worker) is None
    world.tick(worker)
    (again,) = world.dispatch()
    claimed = world.claim(again, worker)
    assert [job.job_id for job in claimed.jobs] == jobs
    assert world.states(batch) == ["pending"]


def test_a_job_of_a_batch_that_is_paused_or_cancelled_meanwhile_is_queued_once_or_not_at_all(world: Any) -> None:
    batch, worker, (first, second) = _begun(world)
    tenant = world.sql("SELECT tenant_id FROM batches")[0].tenant_id
    with world.engine.begin() as connection:
        change(connection, tenant, batch, Change(ponder=ChangedOptions(paused=True)))
    reply = world.tick(worker, deltas={first: [_ended(6)]}, handed_on={first: LARGE})
    assert reply.dropped == (second,)
    shards = world.sql("SELECT model, job_ids FROM shards WHERE state = 'queued' ORDER BY model")
    assert [tuple(shard) for shard in shards] == [("demo", [second]), ("large", [first])]
    with world.engine.begin() as connection:
        change(connection, tenant, batch, Change(ponder=ChangedOptions(paused=False)))
    world.cancel(batch)
    other = world.worker(model="large")
    assert world.claim_all(other) == []


def test_a_waiting_job_says_which_model_it_waits_for_and_shows_what_was_decided(world: Any) -> None:
    _, worker, (first, _) = _begun(world)
    world.tick(worker, deltas={first: [_ended(6)]}, handed_on={first: LARGE})
    with world.engine.begin() as connection:
        record(connection, None)
        tenant = world.sql("SELECT tenant_id FROM batches")[0].tenant_id
        shown = job_object(connection, tenant, f"job_{first}")
    assert [stage["state"] for stage in shown["stages"]] == ["ended", "open"]
    assert shown["stages"][0]["decisions"]["accept"]["agreement"] == 0.5
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["handed_on"]
    assert shown["waiting"]["reason"] == "no_worker"
    assert "serves large with the weights f1" in shown["waiting"]["message"]


def test_what_workers_left_before_steps_had_numbers_is_shown_as_stages(world: Any) -> None:
    _, worker, (first, _) = _begun(world)
    delta = {name: told for name, told in _ended(6).items() if name not in ("step", "next")} | {"stage": 0}
    world.tick(worker, deltas={first: [delta]}, handed_on={first: LARGE})
    tenant = world.sql("SELECT tenant_id FROM batches")[0].tenant_id
    with world.engine.begin() as connection:
        shown = job_object(connection, tenant, f"job_{first}")
    assert [stage["state"] for stage in shown["stages"]] == ["ended", "open"]
    other = world.worker(model="large")
    world.claim_all(other)
    refused = {"nodes": [], "decisions": {"accept": {"accepted": False}}}
    tree = {"stages": [refused, {"nodes": [], "decisions": {}}], "answered_by": 1}
    world.tick(other, settled=[replace(world.passed(first), tree=tree)])
    with world.engine.begin() as connection:
        shown = job_object(connection, tenant, f"job_{first}")
    assert [stage["state"] for stage in shown["stages"]] == ["ended", "ended"]
    assert [stage["has_answered"] for stage in shown["stages"]] == [False, True]
    assert shown["stages"][0]["decisions"] == refused["decisions"]


def test_a_retried_cascade_is_pinned_to_the_weights_of_today_in_every_stage(world: Any) -> None:
    batch, worker, jobs = _begun(world, num_jobs=1)
    world.worker(model="large", fingerprint="f2")
    world.tick(worker, settled=[Settlement(jobs[0], JobState.FAILED, error={"code": "c", "message": "m"})])
    world.finish()
    tenant = world.sql("SELECT tenant_id FROM batches")[0].tenant_id
    with world.engine.begin() as connection:
        retry(connection, tenant, batch, new_batch_id="batch_again")
    (row,) = world.sql("SELECT request FROM jobs WHERE batch_id = 'batch_again'")
    pins = [(pin["model"], pin["fingerprint"]) for pin in row.request["stages"]]
    assert pins == [("demo", "f1"), ("large", "f2")]
    world.sql(
        "UPDATE jobs SET request = jsonb_set(request, '{stages,1,calibration}', '{}') WHERE batch_id = :id", id=batch
    )
    with world.engine.begin() as connection, pytest.raises(Conflict, match="large has other weights"):
        retry(connection, tenant, batch, new_batch_id="batch_more")


def test_costs_by_the_workers_model_are_those_of_the_stage_that_spent_them(world: Any) -> None:
    _, worker, (first, second) = _begun(world)
    world.tick(worker, deltas={first: [_ended(6)]}, handed_on={first: LARGE}, work=world.work(first, second))
    other = world.worker(model="large")
    world.claim_all(other)
    stages = [
        {"nodes": [{"parent": -1}, {"parent": 0, "ordinal": 0, "tokens": 3}], "candidates": [{"node": 1}]},
        {"nodes": [{"parent": -1}, {"parent": 0, "ordinal": 0, "tokens": 4}], "candidates": [{"node": 1}]},
    ]
    settled = replace(world.passed(first), tree={"stages": stages, "answered_by": 1})
    world.tick(other, settled=[settled], work=world.work(first))
    world.tick(worker, settled=[world.passed(second)])

    with world.engine.begin() as connection:
        costs = cost_report(connection, Selection(("worker_model",)))
        (quality,) = report(connection, QUALITY, Selection())
        waste = waste_report(connection, Selection(("worker_model",), where={"strategy": "cascade"}))
    spent = {row.group["worker_model"]: (row.direct_nanodollars, row.num_passed) for row in costs}
    assert spent == {"demo": (world.kinds(worker)["work"], 1), "large": (world.kinds(other)["work"], 1)}
    assert {row.group["worker_model"] for row in waste} == {"demo", "large"}
    assert quality.numbers["restart_rate"] == 0, "a cascade that goes on was not interrupted"
    (row,) = world.sql(
        "SELECT chosen_tokens, pruned_tokens, other_round_tokens FROM usage WHERE job_id = :id", id=first
    )
    assert tuple(row) == (4, 0, 3)


def test_a_batchs_budget_is_reserved_for_what_all_stages_may_generate_and_holds_over_them(world: Any) -> None:
    batch = world.batch(2, stages=("demo", "large"), budget={"tokens": 20})
    world.sql("UPDATE batches SET limit_tokens = 30 WHERE id = :id", id=batch)

    def purse() -> tuple[int, int]:
        with world.engine.begin() as connection:
            own = allowances(connection, [batch])[batch].own
        return own.spent.tokens, own.reserved_tokens

    worker, other = world.worker(room_tokens=10_000), world.worker(model="large")
    (first,) = world.claim_all(worker)
    assert purse() == (0, 20), "the second job does not fit beside it"
    world.tick(worker, deltas={first: [_ended(5, 6)]}, handed_on={first: LARGE})
    assert purse() == (2, 0), "while it waits it keeps nothing from others"
    assert world.claim_all(other) == [first]
    assert purse() == (2, 18), "what former stages made is part of its wall"
    passed = replace(world.passed(first), usage=Usage(completion_tokens=20))
    world.tick(other, settled=[passed])
    assert purse() == (20, 0)
    world.finish()
    assert world.sql("SELECT exhausted_at IS NOT NULL AS is_so FROM batches")[0].is_so
