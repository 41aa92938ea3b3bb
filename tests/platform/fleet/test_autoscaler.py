from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from waiting import until

from ponder.fleet.autoscaler import Autoscaler, Orders, run
from ponder.fleet.problem import Bounds
from ponder.settings import Settings

CPU = (("cpu", "on_demand"),)
SETTINGS = Settings(fleet_interval_s=0.05, fleet_cool_down_s=0)
Log = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def autoscaler(connection: Connection, cloud: Any) -> Callable[..., Autoscaler]:
    def make(*models: str, offers: Sequence[tuple[str, str]] = CPU, **bounds: int) -> Autoscaler:
        return Autoscaler(connection, cloud.provider(offers=offers), Orders(models, Bounds(**bounds)), SETTINGS)

    return make


def known(world: Any) -> None:
    """Lets the model have been served, by a worker that is gone."""
    world.sql("UPDATE incarnations SET state = 'ended' WHERE id = :id", id=world.worker(machine="cpu"))


def timed(world: Any, *machines: str) -> None:
    """Lets jobs have been timed at 100 tokens a second."""
    known(world)
    for machine in machines:
        world.sql(
            "INSERT INTO experience (tenant_id, fingerprint, strategy, level, sums)"
            " VALUES (:tenant, 'f1', '', '', CAST(:sums AS jsonb))",
            tenant=world.tenant(),
            sums=json.dumps({f"time.{machine}.x": 10_000, f"time.{machine}.y": 100}),
        )


def work(world: Any, num_workers: int) -> str:
    """Makes work that keeps so many workers busy until it is due in an hour."""
    batch: str = world.batch(100, tokens=3_600 * num_workers - 1_800, expires_in_s=3_600)
    return batch


def test_as_many_workers_as_the_work_needs_are_started_once(world: Any, cloud: Any, autoscaler: Any, log: Log) -> None:
    timed(world, "cpu")
    work(world, 3)
    scaler = autoscaler(max_workers=5)
    scaler.turn()
    scaler.turn()
    assert len(cloud.machines) == 3
    assert [what for what, _ in log()] == ["start"] * 3
    assert "for 900,000 tokens" in log()[0][1]


def test_neither_the_number_nor_the_price_exceeds_the_bounds(world: Any, cloud: Any, autoscaler: Any) -> None:
    timed(world, "cpu")
    work(world, 9)
    autoscaler(max_workers=2).turn()
    assert len(cloud.machines) == 2
    autoscaler(max_nanodollars_per_hour=499_000_000).turn()
    assert len(cloud.machines) == 4, "at $0.10 an hour each"


def test_a_worker_that_somebody_else_started_does_its_part_and_is_left_alone(
    world: Any, cloud: Any, autoscaler: Any
) -> None:
    timed(world, "cpu")
    strangers = [world.worker(machine="cpu", market="on_demand") for _ in range(2)]
    batch = work(world, 3)
    scaler = autoscaler(max_workers=5)
    scaler.turn()
    assert len(cloud.machines) == 1
    world.cancel(batch)
    for _ in range(3):
        scaler.turn()
    assert cloud.machines == set()
    assert world.sql("SELECT 1 FROM incarnations WHERE drain_until IS NOT NULL") == []
    assert len(strangers) == 2


def test_a_model_that_none_has_served_gets_one_worker_if_it_was_named(world: Any, cloud: Any, autoscaler: Any) -> None:
    autoscaler(max_workers=3).turn()
    assert cloud.machines == set()
    scaler = autoscaler("demo", max_workers=3)
    scaler.turn()
    (name,) = cloud.machines
    world.ready(world.loading_worker(worker=name, machine="cpu", market="on_demand"))
    for _ in range(3):
        scaler.turn()
    assert world.sql("SELECT 1 FROM incarnations WHERE drain_until IS NOT NULL"), "it is known, and has no work"


def test_where_no_job_was_timed_one_worker_shows_how_fast_it_is(
    world: Any, cloud: Any, autoscaler: Any, log: Log
) -> None:
    known(world)
    work(world, 3)
    scaler = autoscaler(max_workers=3)
    scaler.turn()
    scaler.turn()
    assert log() == [("start", "a first worker of demo: to learn how fast it is there")]


@pytest.mark.parametrize("machines", [["cpu"], []])
def test_a_minimum_is_kept_without_any_work(world: Any, cloud: Any, autoscaler: Any, machines: list[str]) -> None:
    timed(world, *machines)
    autoscaler("demo", min_workers=2, max_workers=3).turn()
    assert len(cloud.machines) == 2


def test_after_failed_starts_the_plan_is_made_without_that_market(
    world: Any, cloud: Any, autoscaler: Any, log: Log
) -> None:
    timed(world, "cpu")
    work(world, 1)
    cloud.break_verb("start", 75)
    scaler = autoscaler(offers=[("cpu", "spot"), ("cpu", "on_demand")], max_workers=1)
    for _ in range(2):
        scaler.turn()
        world.sql("UPDATE fleet_workers SET ended_at = ended_at - interval '6 seconds'")
    assert [row.market for row in world.sql("SELECT market FROM fleet_workers")] == ["spot", "spot"]
    cloud.repair("start")
    scaler.turn()
    assert [row.market for row in world.sql("SELECT market FROM fleet_workers ORDER BY ordered_at")][-1] == "on_demand"
    assert len(cloud.machines) == 1


def test_a_market_that_gives_no_more_workers_keeps_those_that_it_gave(world: Any, cloud: Any, autoscaler: Any) -> None:
    timed(world, "cpu")
    work(world, 1)
    scaler = autoscaler(offers=[("cpu", "spot"), ("cpu", "on_demand")], max_workers=3)
    scaler.turn()
    (name,) = cloud.machines
    world.ready(world.loading_worker(worker=name, machine="cpu", market="spot"))
    scaler.turn()
    work(world, 1)
    cloud.break_verb("start", 75)
    past = "ordered_at = ordered_at - interval '6 seconds', ready_at = ordered_at - interval '6 seconds'"
    for _ in range(4):
        scaler.turn()
        world.sql(f"UPDATE fleet_workers SET {past} WHERE NOT has_failed")
        world.sql(f"UPDATE fleet_workers SET {past}, ended_at = ended_at - interval '6 seconds' WHERE has_failed")
        world.sql("UPDATE fleet_workers SET ready_at = NULL WHERE has_failed")
    assert len(world.sql("SELECT 1 FROM fleet_workers WHERE has_failed")) >= 2
    assert world.sql("SELECT 1 FROM incarnations WHERE drain_until IS NOT NULL") == []


def test_jobs_that_are_pinned_to_former_weights_ask_for_no_worker_that_could_not_do_them(
    world: Any, cloud: Any, autoscaler: Any
) -> None:
    timed(world, "cpu")
    work(world, 1)
    world.sql("UPDATE models SET last_seen_at = last_seen_at - interval '1 hour'")
    newer = world.worker(machine="cpu", fingerprint="f2")
    world.sql("UPDATE incarnations SET state = 'ended' WHERE id = :id", id=newer)
    autoscaler(max_workers=3).turn()
    assert cloud.machines == set()


def test_one_of_two_autoscalers_is_active_and_the_other_takes_over(world: Any, cloud: Any, database_url: str) -> None:
    timed(world, "cpu")
    work(world, 2)
    stops = [threading.Event(), threading.Event()]
    orders = Orders((), Bounds(max_workers=2))
    threads = [
        threading.Thread(target=run, args=(database_url, cloud.provider(offers=CPU), orders, SETTINGS, stop))
        for stop in stops
    ]
    num_seen = "SELECT 1 FROM fleet_workers WHERE seen_at IS NOT NULL"
    try:
        threads[0].start()
        until(lambda: len(world.sql(num_seen)) == 2, 20)
        for name in cloud.machines:
            world.ready(world.loading_worker(worker=name, machine="cpu", market="on_demand"))
        until(lambda: len(world.sql("SELECT 1 FROM fleet_workers WHERE ready_at IS NOT NULL")) == 2, 20)
        threads[1].start()
        stops[0].set()
        threads[0].join(20)
        cloud.take_away(min(cloud.machines))
        until(lambda: len(world.sql(num_seen)) == 3, 20)
    finally:
        for stop, thread in zip(stops, threads, strict=True):
            stop.set()
            thread.join(20)
    assert len([call for call in cloud.calls if call.startswith("start")]) == 3


def test_an_outage_of_postgres_interrupts_an_autoscaler_and_does_not_end_it(
    world: Any, cloud: Any, database_url: str
) -> None:
    timed(world, "cpu")
    stop = threading.Event()
    orders = Orders((), Bounds(max_workers=2))
    thread = threading.Thread(target=run, args=(database_url, cloud.provider(offers=CPU), orders, SETTINGS, stop))
    thread.start()
    try:
        locked = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        until(lambda: world.sql(locked), 20)
        world.sql(f"SELECT pg_terminate_backend(pid) FROM ({locked}) AS holders")
        work(world, 1)
        until(lambda: len(cloud.machines) == 1, 20)
    finally:
        stop.set()
        thread.join(20)
