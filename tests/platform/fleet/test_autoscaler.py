from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs
from waiting import until

from ponder.fleet import roster
from ponder.fleet.autoscaler import Autoscaler, Orders, run
from ponder.fleet.problem import Bounds
from ponder.fleet.provider import Pool
from ponder.fleet.providers.local import Local
from ponder.settings import Settings

CPU = (("cpu", "on_demand"),)
SETTINGS = Settings(fleet_interval_s=0.05, fleet_cool_down_s=0)
Log = Callable[[], list[tuple[str, str]]]


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


def drained_by(scaler: Autoscaler, world: Any) -> list[str]:
    """Takes turns until some workers are drained, and returns their incarnations."""

    def drained() -> list[str]:
        scaler.turn()
        return [row.id for row in world.sql("SELECT id FROM incarnations WHERE drain_until IS NOT NULL")]

    return until(drained, 60)


def test_as_many_workers_as_the_work_needs_are_started_once(world: Any, cloud: Any, autoscaler: Any, log: Log) -> None:
    timed(world, "cpu")
    work(world, 3)
    scaler = autoscaler(max_workers=5)
    scaler.turn()
    scaler.turn()
    assert len(cloud.machines) == 3
    assert [what for what, _ in log()] == ["start"] * 3
    assert "for 900,000 tokens" in log()[0][1]


def test_the_services_own_log_names_the_workers_that_it_starts(world: Any, cloud: Any, autoscaler: Any) -> None:
    timed(world, "cpu")
    work(world, 2)
    with capture_logs() as lines:
        autoscaler(max_workers=2).turn()
    assert {line["worker"] for line in lines if line["event"] == "start"} == cloud.machines


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
    (name,) = cloud.machines
    world.ready(world.loading_worker(worker=name, machine="cpu", market="on_demand"))
    world.cancel(batch)
    drained = drained_by(scaler, world)
    assert len(drained) == 1
    assert drained[0] not in strangers


def test_a_worker_is_not_given_up_before_it_could_have_loaded(world: Any, cloud: Any, autoscaler: Any) -> None:
    timed(world, "cpu")
    batch = work(world, 1)
    scaler = autoscaler(max_workers=5)
    scaler.turn()
    world.cancel(batch)
    for _ in range(3):
        scaler.turn()
    assert len(cloud.machines) == 1, "loading takes two minutes as long as nothing else is known"
    (name,) = cloud.machines
    world.ready(world.loading_worker(worker=name, machine="cpu", market="on_demand"))
    world.sql("UPDATE fleet_workers SET ready_at = ordered_at + interval '300 seconds'")
    (row,) = roster.open_rows(scaler.connection)
    assert row.loading_s == 300


def test_a_model_that_none_has_served_gets_one_worker_if_it_was_named(world: Any, cloud: Any, autoscaler: Any) -> None:
    autoscaler(max_workers=3).turn()
    assert cloud.machines == set()
    scaler = autoscaler("demo", max_workers=3)
    scaler.turn()
    (name,) = cloud.machines
    world.ready(world.loading_worker(worker=name, machine="cpu", market="on_demand"))
    assert drained_by(scaler, world), "it is known, and has no work"


def test_where_no_job_was_timed_one_worker_shows_how_fast_it_is(
    world: Any, cloud: Any, autoscaler: Any, log: Log
) -> None:
    known(world)
    work(world, 3)
    scaler = autoscaler(max_workers=3)
    scaler.turn()
    scaler.turn()
    assert log() == [("start", "a first worker of demo: to learn how fast it is there")]


def test_without_a_named_machine_no_worker_is_started_where_the_model_may_not_fit(
    world: Any, cloud: Any, autoscaler: Any, log: Log
) -> None:
    known(world)
    work(world, 3)
    scaler = autoscaler("demo", "never-served", offers=[], max_workers=3)
    scaler.turn()
    scaler.turn()
    assert cloud.machines == set()
    assert [(what, why.split(":")[0]) for what, why in log()] == [
        ("failed", "no job of demo was timed on any machine"),
        ("failed", "no job of never-served was timed on any machine"),
    ]
    assert "--machine" in log()[0][1]


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


def test_what_a_market_no_longer_gives_is_started_on_another(world: Any, cloud: Any, autoscaler: Any) -> None:
    timed(world, "cpu")
    work(world, 1)
    scaler = autoscaler(offers=[("cpu", "spot"), ("cpu", "on_demand")], max_workers=3)
    scaler.turn()
    (name,) = cloud.machines
    world.ready(world.loading_worker(worker=name, machine="cpu", market="spot"))
    scaler.turn()
    world.sql("UPDATE fleet_workers SET ordered_at = ordered_at - interval '1 hour'")
    cloud.break_verb("start", 75)
    world.batch(100, tokens=3_000, expires_in_s=400)
    scaler.turn()
    cloud.repair("start")
    scaler.turn()
    markets = Counter(row.market for row in world.sql("SELECT market FROM fleet_workers WHERE ended_at IS NULL"))
    assert markets == {"spot": 1, "on_demand": 2}, "two starts on spot failed; the worker that runs there stays"
    assert world.sql("SELECT 1 FROM incarnations WHERE drain_until IS NOT NULL") == []


def test_a_worker_on_a_machine_that_may_not_be_started_does_its_part(world: Any, cloud: Any, autoscaler: Any) -> None:
    timed(world, "cpu", "h100")
    world.worker(machine="h100", market="on_demand")
    work(world, 1)
    scaler = autoscaler(max_workers=5)
    scaler.turn()
    assert cloud.machines == set()
    work(world, 2)
    scaler.turn()
    assert len(cloud.machines) == 2


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
    with capture_logs() as lines:

        def leaders() -> list[str]:
            return [line["event"] for line in lines if line["event"] in {"active", "standby"}]

        try:
            threads[0].start()
            until(lambda: len(world.sql(num_seen)) == 2, 60)
            for name in cloud.machines:
                world.ready(world.loading_worker(worker=name, machine="cpu", market="on_demand"))
            until(lambda: len(world.sql("SELECT 1 FROM fleet_workers WHERE ready_at IS NOT NULL")) == 2, 60)
            threads[1].start()
            until(lambda: leaders() == ["active", "standby"], 60)
            stops[0].set()
            threads[0].join(60)
            cloud.take_away(min(cloud.machines))
            until(lambda: len(world.sql(num_seen)) == 3, 60)
            assert leaders() == ["active", "standby", "active"]
        finally:
            for stop, thread in zip(stops, threads, strict=True):
                stop.set()
                thread.join(60)
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
        until(lambda: world.sql(locked), 60)
        world.sql(f"SELECT pg_terminate_backend(pid) FROM ({locked}) AS holders")
        work(world, 1)
        until(lambda: len(cloud.machines) == 1, 60)
    finally:
        stop.set()
        thread.join(60)


def test_an_autoscaler_that_another_one_has_replaced_has_no_workers_of_its_own(
    world: Any, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    timed(world, "cpu")
    work(world, 1)
    environment = os.environ | {"PONDER_HOME": str(tmp_path)}
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    provider, watcher = (
        Local([], machine="cpu", market="on_demand", log=tmp_path / "log", environment=environment, program=sleeper)
        for _ in range(2)
    )
    stop = threading.Event()
    orders = Orders((), Bounds(max_workers=2))
    running = threading.Thread(target=run, args=(database_url, provider, orders, SETTINGS, stop))
    pool = Pool("demo", "cpu", "on_demand")
    lock = (
        "SELECT pid, (CAST(classid AS bigint) << 32) + CAST(objid AS bigint) AS key"
        " FROM pg_locks WHERE locktype = 'advisory' AND granted"
    )
    running.start()
    try:
        until(lambda: watcher.workers(pool), 60)
        ((holder, key),) = world.sql(lock)
        other = threading.Thread(target=connection.exec_driver_sql, args=(f"SELECT pg_advisory_lock({key})",))
        other.start()
        until(lambda: world.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"), 60)
        world.sql(f"SELECT pg_terminate_backend({holder})")
        other.join(60)
        until(lambda: not watcher.workers(pool), 60)
    finally:
        stop.set()
        running.join(60)


def test_a_slow_provider_is_not_asked_for_more_once_the_autoscaler_is_to_end(
    world: Any, cloud: Any, autoscaler: Any
) -> None:
    timed(world, "cpu")
    work(world, 3)
    scaler = autoscaler(max_workers=3)
    ending = threading.Thread(target=lambda: (until(lambda: cloud.machines, 60), scaler.stop.set()))
    (cloud.folder / "cloud").write_text((cloud.folder / "cloud").read_text().replace("  start)", "  start) sleep 0.5;"))
    ending.start()
    scaler.lead()
    ending.join(60)
    assert len(cloud.calls) < 3
