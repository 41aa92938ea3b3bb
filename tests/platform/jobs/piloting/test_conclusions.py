"""A pilot runs first, says what the whole batch will cost, and the rest waits where it should."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.domain.batch.submission import Change
from ponder.domain.state import JobState, PilotState
from ponder.errors import Conflict
from ponder.jobs.batch.change import change
from ponder.jobs.batch.retry import retry
from ponder.jobs.estimating import fleet
from ponder.jobs.piloting import conclusions
from ponder.jobs.piloting.conclusions import Conclusions
from ponder.jobs.piloting.pilot import PilotStatus, Reason
from ponder.jobs.tick import Settlement, Usage

TENANT = "tenant_00"


def _batch(desk: Any, num_jobs: int = 40, *, jobs: int = 8, confirm: bool = False, **options: Any) -> str:
    lines = [desk.line(f"row-{number}") for number in range(num_jobs)]
    return str(desk.batch(*lines, pilot={"jobs": jobs, "confirm": confirm}, **options))


def _settle(world: Any, worker: str, *, tokens: int = 50, fails: bool = False) -> list[int]:
    """Claims and settles until nothing more may run. Returns the jobs."""
    jobs: list[int] = []
    while claimed := world.claim_all(worker):
        usage = Usage(prompt_tokens=9, completion_tokens=tokens)
        settled = [replace(world.passed(job), usage=usage) for job in claimed]
        if fails:
            settled = [Settlement(job, JobState.FAILED, error={"code": "c", "message": "m"}) for job in claimed]
        world.tick(worker, settled=settled, work=world.work(*claimed))
        jobs += claimed
    return jobs


def _change(world: Any, batch: str, **changes: Any) -> None:
    with world.engine.begin() as connection:
        change(connection, TENANT, batch, Change.model_validate({"ponder": changes}))


def _pilot(world: Any, batch: str) -> Any:
    return world.sql("SELECT * FROM pilots WHERE batch_id = :id", id=batch)[0]


@pytest.fixture
def worker(world: Any) -> str:
    return str(world.worker(fingerprint="f0"))


def test_only_the_pilot_runs_until_it_is_settled_and_then_everything_else_once(
    desk: Any, world: Any, worker: str
) -> None:
    batch = _batch(desk)
    drawn = _settle(world, worker)
    assert len(drawn) == 8
    assert sorted(drawn) == _pilot(world, batch).job_ids
    assert world.claim_all(worker) == []

    world.conclude()
    assert _pilot(world, batch).state == "passed"
    rest = _settle(world, worker)
    assert sorted(drawn + rest) == world.jobs(batch), "each job ran once"
    world.finish()
    assert world.state(batch) == "completed"
    assert world.totals(batch) == world.counted(batch)


def test_the_estimate_of_the_whole_batch_rests_on_the_pilot(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, 100, jobs=20)
    _settle(world, worker, tokens=30)
    world.conclude()
    estimate = _pilot(world, batch).estimate
    assert estimate["jobs"] == 100
    assert estimate["parts"][0]["settled"] == 20
    generated = estimate["generated_tokens"]
    assert generated["low"] <= 3_000 <= generated["high"]
    assert abs(generated["estimate"] / 3_000 - 1) < 0.1
    assert estimate["direct_nanodollars"]["estimate"] > 0


def test_the_same_jobs_are_drawn_of_the_same_file_and_they_are_spread_over_it(desk: Any, world: Any) -> None:
    places = []
    for batch in (_batch(desk, 1_000, jobs=100), _batch(desk, 1_000, jobs=100)):
        first = world.jobs(batch)[0]
        places.append([job - first for job in _pilot(world, batch).job_ids])
    assert places[0] == places[1]
    assert all(12 <= sum(start <= place < start + 250 for place in places[0]) <= 38 for start in range(0, 1_000, 250))


def test_the_rest_waits_for_a_yes_that_was_asked_for(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, confirm=True)
    _settle(world, worker)
    with pytest.raises(Conflict, match="no pilot that waits"):
        _change(world, batch, pilot={"confirmed": True})
    world.conclude()
    assert (_pilot(world, batch).state, _pilot(world, batch).reason) == ("waiting", "confirm")
    world.finish()
    assert world.claim_all(worker) == []
    assert world.state(batch) == "in_progress"

    _change(world, batch, paused=True)
    for _ in range(2):
        _change(world, batch, paused=False)
        assert _pilot(world, batch).state == "waiting", "the end of a pause is no answer to the pilot"
    _change(world, batch, pilot={"confirmed": True})
    _change(world, batch, pilot={"confirmed": True})
    assert len(_settle(world, worker)) == 32


def test_an_estimate_above_the_dollars_stops_the_batch_until_they_suffice(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, batch_budget={"dollars": 1})
    drawn = _settle(world, worker)
    spent = world.totals(batch).direct_nanodollars
    _change(world, batch, batch_budget={"dollars": 2 * spent / 1e9})
    world.conclude()
    assert (_pilot(world, batch).state, _pilot(world, batch).reason) == ("waiting", "over_budget")
    _change(world, batch, batch_budget={"dollars": 3 * spent / 1e9})
    world.conclude()
    world.finish()
    assert world.claim_all(worker) == [], "still too little"
    _change(world, batch, batch_budget={"dollars": 20 * spent / 1e9})
    world.conclude()
    assert len(_settle(world, worker)) == 40 - len(drawn)


def test_a_yes_overrules_the_estimate_but_not_the_budget(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, batch_budget={"dollars": 1})
    _settle(world, worker)
    spent = world.totals(batch).direct_nanodollars
    _change(world, batch, batch_budget={"dollars": 1.5 * spent / 1e9})
    world.conclude()
    _change(world, batch, pilot={"confirmed": True})
    assert 0 < len(world.claim_all(worker)) <= 4


def test_more_dollars_do_not_answer_for_the_owner(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, confirm=True, batch_budget={"dollars": 1})
    _settle(world, worker)
    spent = world.totals(batch).direct_nanodollars
    _change(world, batch, batch_budget={"dollars": 2 * spent / 1e9})
    world.conclude()
    _change(world, batch, batch_budget=None)
    world.conclude()
    assert (_pilot(world, batch).state, _pilot(world, batch).reason) == ("waiting", "confirm")


def test_a_pilot_of_which_nothing_completed_waits_and_a_yes_goes_on(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    _settle(world, worker, fails=True)
    world.conclude()
    assert (_pilot(world, batch).state, _pilot(world, batch).reason) == ("waiting", "failed")
    assert world.claim_all(worker) == []
    _change(world, batch, pilot={"confirmed": True})
    assert len(world.claim_all(worker)) == 32


def test_a_pilot_of_all_jobs_is_the_batch(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, 5, jobs=10_000, confirm=True)
    assert len(_settle(world, worker)) == 5
    world.finish()
    assert world.state(batch) == "completed"
    world.conclude()
    assert _pilot(world, batch).state == "passed"


def test_a_worker_that_vanishes_hands_the_pilot_on(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk)
    held = world.claim_all(worker)
    world.release(worker)
    world.conclude()
    assert _pilot(world, batch).state == "running"
    again = world.claim_all(world.worker(fingerprint="f0"))
    assert sorted(again) == sorted(held)


def test_a_batch_can_be_cancelled_or_expire_in_its_pilot(desk: Any, world: Any, worker: str) -> None:
    cancelled, expired = _batch(desk), _batch(desk)
    jobs = world.claim_all(worker)
    world.cancel(cancelled)
    world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=expired)
    world.finish()
    assert sorted(world.tick(worker).dropped) == sorted(jobs)
    world.finish()
    world.conclude()
    for batch, state in ((cancelled, "cancelled"), (expired, "expired")):
        assert world.state(batch) == state
        world.finish()
        assert set(world.states(batch)) == {state}
        assert _pilot(world, batch).state == "stopped"


def test_a_budget_of_tokens_that_the_pilot_exhausts_is_reported_although_smaller_jobs_wait(
    desk: Any, world: Any, worker: str
) -> None:
    lines = [desk.line(f"row-{number}", ponder={"budget": {"tokens": 100}}) for number in range(20)]
    batch = desk.batch(*lines, pilot={"jobs": 5}, batch_budget={"tokens": 250})
    jobs = world.claim_all(worker)
    world.tick(worker, settled=[replace(world.passed(job), usage=Usage(completion_tokens=100)) for job in jobs])
    assert world.claim_all(worker) == []
    world.finish()
    assert desk.row(batch).exhausted_at is not None
    _change(world, batch, batch_budget={"tokens": 10_000})
    assert len(world.claim_all(worker)) == 3


def test_a_retry_has_no_pilot_and_keeps_the_survey(desk: Any, world: Any, worker: str) -> None:
    batch = _batch(desk, 5, jobs=5)
    _settle(world, worker, fails=True)
    world.finish()
    with world.engine.begin() as connection:
        again = retry(connection, TENANT, batch, new_batch_id="batch_ff")
    assert world.sql("SELECT 1 FROM pilots WHERE batch_id = :id", id=again) == []
    assert len(world.sql("SELECT 1 FROM surveys WHERE batch_id = :id", id=again)) == 1
    assert len(world.claim_all(worker)) == 5


def test_a_pilot_that_cannot_be_concluded_holds_up_no_other_and_is_tried_again(
    desk: Any, world: Any, worker: str
) -> None:
    batches = [_batch(desk, 12, jobs=4) for _ in range(7)]
    _settle(world, worker)
    broken = min(batches)
    (kept,) = world.sql("SELECT * FROM surveys WHERE batch_id = :id", id=broken)
    world.sql("DELETE FROM surveys WHERE batch_id = :id", id=broken)
    concluding = Conclusions(world.engine)

    def states() -> list[str]:
        return [_pilot(world, batch).state for batch in sorted(batches)]

    concluding.turn(0.0)
    assert states() == ["running", *["passed"] * 4, *["running"] * 2], "a few a turn"
    concluding.turn(1.0)
    assert states() == ["running", *["passed"] * 6]

    world.sql(
        "INSERT INTO surveys (batch_id, document) VALUES (:id, CAST(:document AS jsonb))",
        id=broken,
        document=json.dumps(kept.document),
    )
    concluding.turn(2.0)
    assert states()[0] == "running", "not again at once"
    concluding.turn(60.0)
    assert states()[0] == "passed"


def test_the_overhead_is_read_once_for_all_pilots_of_the_same_models(
    desk: Any, world: Any, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def loading_of(connection: Any, fingerprints: Any) -> Any:
        read.append(fingerprints)
        return fleet.loading_of(connection, fingerprints)

    monkeypatch.setattr(conclusions, "loading_of", loading_of)
    for _ in range(3):
        _batch(desk, 12, jobs=4)
    _settle(world, worker)
    world.conclude()
    assert read == [("f0",)]


@pytest.mark.parametrize(
    ("reason", "num_jobs", "estimate", "message"),
    [
        ("failed", 30, None, "none of the pilot's 30 jobs completed, so nothing is known about the others"),
        ("failed", 1, None, "the pilot's only job did not complete, so nothing is known about the others"),
        ("confirm", 30, None, "the pilot does not tell what the whole batch will cost"),
        ("confirm", 30, 2e9, "the pilot's estimate of the whole batch is $2.00 ($1.00 to $4.00)"),
        (
            "over_budget",
            30,
            2e9,
            "the pilot's estimate of the whole batch, $2.00 ($1.00 to $4.00), exceeds the batch's budget",
        ),
    ],
)
def test_a_pilot_says_why_the_rest_waits(reason: Reason, num_jobs: int, estimate: float | None, message: str) -> None:
    bounds = {"low": None, "high": None} if estimate is None else {"low": estimate / 2, "high": estimate * 2}
    document = {"direct_nanodollars": {"estimate": estimate, **bounds}}
    pilot = PilotStatus(PilotState.WAITING, must_confirm=True, reason=reason, estimate=document, num_jobs=num_jobs)
    assert pilot.message == message


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_jobs=st.integers(1, 300),
    jobs=st.integers(1, 300),
    models=st.lists(st.sampled_from(["demo", "bare"]), min_size=1, max_size=3),
    shard_tokens=st.integers(100, 5_000),
)
def test_every_job_of_a_piloted_batch_is_cut_exactly_once(
    desk: Any, world: Any, num_jobs: int, jobs: int, models: list[str], shard_tokens: int
) -> None:
    lines = [desk.line(f"row-{number}", model=models[number % len(models)]) for number in range(num_jobs)]
    world.shard_tokens = shard_tokens
    batch = desk.batch(*lines, pilot={"jobs": jobs})
    workers = [world.worker(model="demo", fingerprint="f0"), world.worker(model="bare", fingerprint="f1")]
    first = [job for worker in workers for job in world.claim_all(worker)]
    assert len(first) == min(jobs, num_jobs)
    for worker in workers:
        held = world.sql("SELECT job_id FROM attempts WHERE incarnation_id = :id AND ended_at IS NULL", id=worker)
        world.tick(worker, settled=[world.passed(row.job_id) for row in held])
    world.conclude()
    rest = [job for worker in workers for job in world.claim_all(worker)]
    assert sorted(first + rest) == world.jobs(batch)
    world.cancel(batch)
