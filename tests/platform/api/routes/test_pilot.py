"""Pilots and projections through the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import Engine

from ponder.jobs.piloting.conclusions import Conclusions

Submitted = Callable[..., openai.types.Batch]


def _lines(line: Any, number: int = 20) -> Sequence[dict[str, Any]]:
    return [line(f"row-{place}") for place in range(number)]


def _own(http: httpx2.Client, batch_id: str) -> Any:
    return http.get(f"/v1/batches/{batch_id}").raise_for_status().json()["ponder"]


def _patch(http: httpx2.Client, batch_id: str, **changes: Any) -> httpx2.Response:
    return http.patch(f"/v1/batches/{batch_id}", json={"ponder": changes})


def _conclude(engine: Engine) -> None:
    Conclusions(engine).turn(time.monotonic())


@pytest.mark.parametrize(
    ("pilot", "param"),
    [
        ({}, "ponder.pilot.jobs"),
        ({"jobs": 0}, "ponder.pilot.jobs"),
        ({"jobs": 10_001}, "ponder.pilot.jobs"),
        ({"jobs": 2.5}, "ponder.pilot.jobs"),
        ({"jobs": "30"}, "ponder.pilot.jobs"),
        ({"jobs": True}, "ponder.pilot.jobs"),
        ({"jobs": 3, "confirm": "yes"}, "ponder.pilot.confirm"),
        ({"jobs": 3, "seed": 1}, "ponder.pilot.seed"),
        (30, "ponder.pilot"),
    ],
)
def test_a_malformed_pilot_is_refused_by_its_field(
    submitted: Submitted, line: Any, http: httpx2.Client, pilot: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        submitted([line()], pilot=pilot)
    assert refusal.value.param == param


def test_ending_a_pause_twice_is_no_yes_to_the_pilot(
    submitted: Submitted, line: Any, worker: Any, passed: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted(_lines(line), pilot={"jobs": 5, "confirm": True})
    worker.validate()
    worker.work(passed)
    _conclude(engine)
    _patch(http, batch.id, paused=True).raise_for_status()
    for _ in range(2):
        changed = _patch(http, batch.id, paused=False).raise_for_status().json()["ponder"]
        assert (changed["paused"], changed["pilot"]["state"]) == (False, "waiting")


def test_a_yes_before_there_is_an_estimate_is_refused(
    submitted: Submitted, line: Any, worker: Any, http: httpx2.Client
) -> None:
    for pilot in ({}, {"pilot": {"jobs": 5, "confirm": True}}):
        batch = submitted(_lines(line), **pilot)
        worker.validate()
        refused = _patch(http, batch.id, pilot={"confirmed": True})
        assert (refused.status_code, "has no pilot that waits" in refused.text) == (409, True)


@pytest.mark.parametrize("confirmed", [False, None, "yes"])
def test_a_yes_cannot_be_taken_back(submitted: Submitted, line: Any, http: httpx2.Client, confirmed: Any) -> None:
    refused = _patch(http, submitted([line()]).id, pilot={"confirmed": confirmed})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "ponder.pilot.confirmed")


def test_a_line_and_a_change_have_no_pilot(submitted: Submitted, line: Any, worker: Any, http: httpx2.Client) -> None:
    batch = submitted([line(ponder={"pilot": {"jobs": 1}}), line("b")])
    worker.validate()
    assert http.get(f"/v1/batches/{batch.id}").json()["errors"]["data"][0]["param"] == "body.ponder.pilot"
    refused = http.patch(f"/v1/batches/{batch.id}", json={"ponder": {"pilot": {"jobs": 1}}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "ponder.pilot.confirmed")


def test_a_batch_waits_for_a_yes_to_its_pilot_s_estimate(
    submitted: Submitted, line: Any, worker: Any, passed: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted(_lines(line), pilot={"jobs": 5, "confirm": True})
    assert _own(http, batch.id)["pilot"] is None
    worker.validate()
    own = _own(http, batch.id)
    begun = {"state": "running", "reason": None, "jobs": 5, "settled": 0, "confirm": True, "estimate": None}
    assert own["pilot"] == begun
    assert own["waiting"]["reason"] == "queued"
    worker.work(passed)
    assert _own(http, batch.id)["pilot"]["settled"] == 5

    _conclude(engine)
    own = _own(http, batch.id)
    assert (own["pilot"]["state"], own["pilot"]["reason"]) == ("waiting", "confirm")
    assert own["pilot"]["estimate"]["jobs"] == 20
    assert own["waiting"]["reason"] == "pilot"
    assert f"`ponder confirm {batch.id}` runs the rest" in own["waiting"]["message"]
    job = http.get(f"/v1/batches/{batch.id}/jobs", params={"state": "pending"}).json()["data"][0]
    assert http.get(f"/v1/jobs/{job['id']}").json()["waiting"]["reason"] == "pilot"
    listed = http.get("/v1/batches").json()["data"][0]["ponder"]
    assert listed["pilot"]["state"] == "waiting"
    assert not {"estimate", "projection"} & (listed["pilot"].keys() | listed.keys())

    for _ in range(2):
        changed = _patch(http, batch.id, pilot={"confirmed": True}).raise_for_status().json()
        assert (changed["ponder"]["pilot"]["state"], changed["ponder"]["pilot"]["reason"]) == ("passed", None)
    worker.work(passed)
    ended = http.get(f"/v1/batches/{batch.id}").json()
    assert (ended["status"], ended["request_counts"]["completed"]) == ("completed", 20)
    assert ended["ponder"]["projection"] is None


def test_an_estimate_above_the_budget_says_so_and_how_to_go_on(
    submitted: Submitted, line: Any, worker: Any, passed: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted(_lines(line), pilot={"jobs": 5}, batch_budget={"dollars": 100})
    worker.validate()
    worker.work(passed)
    spent = _own(http, batch.id)["direct_nanodollars"]
    low = {"ponder": {"batch_budget": {"dollars": 2 * spent / 1e9}}}
    http.patch(f"/v1/batches/{batch.id}", json=low).raise_for_status()
    _conclude(engine)
    own = _own(http, batch.id)
    assert (own["pilot"]["reason"], own["waiting"]["reason"]) == ("over_budget", "pilot")
    assert "exceeds the batch's budget" in own["waiting"]["message"]
    assert f"`ponder budget {batch.id}` raises the budget" in own["waiting"]["message"]
    assert own["projection"]["budget"]["runs_out"] in ("yes", "maybe")


def test_a_stopped_pilot_is_that_of_a_batch_that_ended(
    submitted: Submitted, line: Any, worker: Any, http: httpx2.Client, engine: Engine
) -> None:
    batch = submitted(_lines(line), pilot={"jobs": 5})
    worker.validate()
    http.post(f"/v1/batches/{batch.id}/cancel").raise_for_status()
    _conclude(engine)
    assert _own(http, batch.id)["pilot"]["state"] == "stopped"


def test_a_batch_in_progress_is_projected_and_nobody_sees_that_of_another_tenant(
    submitted: Submitted, line: Any, worker: Any, passed: Any, http: httpx2.Client, stranger: httpx2.Client
) -> None:
    batch = submitted(_lines(line))
    worker.validate()
    jobs = worker.claim()
    worker.tick([passed(job) for job in jobs[:10]], jobs[:10])
    projection = _own(http, batch.id)["projection"]
    assert projection["total_nanodollars"]["estimate"] > projection["spent_nanodollars"] > 0
    assert projection["seconds_left"]["low"] < projection["seconds_left"]["high"]
    assert stranger.get(f"/v1/batches/{batch.id}").status_code == 404
