"""What an operator sees of workers, and that nobody else does."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import text
from world import World

from ponder.jobs.tick_report import WorkerSample
from ponder.jobs.worker_sample import keep


@pytest.fixture
def http(base_url: str, operator_key: str) -> httpx2.Client:
    return httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {operator_key}"}, timeout=30)


@pytest.fixture
def sampled(world: World) -> Callable[..., None]:
    """Adds a sample of a worker, which covers two seconds."""

    def add(incarnation: str, age_s: float, generated: int = 60, kv_usage: float = 0.25) -> None:
        after = {"generated_tokens": float(generated), "num_running": 3, "kv_cache_usage_perc": kv_usage}
        with world.engine.begin() as connection:
            now = connection.execute(text("SELECT clock_timestamp() - :age * interval '1 second'"), {"age": age_s})
            keep(connection, incarnation, now.scalar_one(), WorkerSample.of({}, after, 2.0))

    return add


def test_living_workers_come_first_with_their_load_and_ended_ones_with_their_reason(
    http: httpx2.Client, world: World, sampled: Callable[..., None]
) -> None:
    gone, here = world.worker(machine="a100"), world.worker()
    sampled(here, 1.0)
    sampled(gone, 1.0)
    world.sql(
        "UPDATE incarnations SET state = 'ended', ended_at = clock_timestamp(), end_reason = 'its lease expired' "
        "WHERE id = :id",
        id=gone,
    )
    first, second = http.get("/v1/fleet/workers", params={"since": time.time() - 60}).json()["data"]
    assert (first["id"], first["state"], first["is_alive"]) == (here, "ready", True)
    assert first["load"] == {"kv_usage": 0.25, "num_running": 3, "num_waiting": 0, "generated_tokens_per_s": 30.0}
    assert (second["id"], second["end_reason"], second["load"]) == (gone, "its lease expired", None)
    assert http.get("/v1/fleet/workers", params={"since": time.time() + 60}).json()["data"] == [first]


def test_a_worker_whose_lease_has_expired_is_not_alive_though_nobody_has_swept_it(
    http: httpx2.Client, world: World
) -> None:
    worker = world.worker()
    world.sql("UPDATE incarnations SET lease_until = clock_timestamp() - interval '1 second' WHERE id = :id", id=worker)
    [seen] = http.get("/v1/fleet/workers", params={"since": 0}).json()["data"]
    assert (seen["state"], seen["is_alive"]) == ("ready", False)


def test_an_old_sample_says_nothing_of_now(http: httpx2.Client, world: World, sampled: Callable[..., None]) -> None:
    sampled(world.worker(), 300.0)
    [seen] = http.get("/v1/fleet/workers", params={"since": 0}).json()["data"]
    assert seen["load"] is None


def test_the_load_of_a_model_adds_its_workers_and_averages_their_memory(
    http: httpx2.Client, world: World, sampled: Callable[..., None]
) -> None:
    one, other = world.worker(), world.worker()
    stranger = world.worker(model="other", fingerprint="f9")
    for worker, usage in ((one, 0.2), (other, 0.4), (stranger, 0.9)):
        sampled(worker, 1.0, generated=60, kv_usage=usage)
    now = time.time()
    rows = http.get("/v1/fleet/load", params={"since": now - 600, "until": now + 600, "step_s": 3_600}).json()["data"]
    whole = {row["model"]: row for row in rows if row["model"] == "demo"}["demo"]
    assert (whole["num_workers"], whole["num_running"]) == (2, 6)
    assert whole["kv_usage"] == pytest.approx(0.3)
    assert whole["generated_tokens_per_s"] == pytest.approx(120 / 3_600)
    assert {row["model"] for row in rows} == {"demo", "other"}


def test_too_many_steps_are_refused(http: httpx2.Client) -> None:
    answer = http.get("/v1/fleet/load", params={"since": 0, "until": 1e9, "step_s": 1})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "step_s"


def test_tenants_see_no_workers(http: httpx2.Client, base_url: str) -> None:
    http.post("/v1/tenants", json={"name": "strangers"}).raise_for_status()
    key = http.post("/v1/keys", json={"name": "theirs", "tenant": "strangers"}).raise_for_status().json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    for path in ("/v1/fleet/workers?since=0", "/v1/fleet/load?since=0&until=1"):
        assert httpx2.get(base_url + path, headers=headers).status_code == 403
