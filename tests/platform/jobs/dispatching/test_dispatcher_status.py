"""An outage of Postgres is distinguished from the death of a worker."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ponder.errors import LeaseLost
from ponder.jobs.dispatching.dispatcher_status import beat, keep_beating
from ponder.jobs.dispatching.sweep import sweep
from ponder.jobs.release import abandon

LEASE_S = 30.0
FIRST = None


class Clock:
    """A dispatcher's pulse, with a way to let time pass."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.at = FIRST

    def beat(self) -> None:
        with self.world.engine.begin() as connection:
            self.at = beat(connection, lease_s=LEASE_S, beat_before=self.at)

    def restart_dispatcher(self) -> None:
        self.at = FIRST

    def pass_s(self, seconds: float, *, silent: bool = True) -> None:
        """Lets time pass, by making all recorded times earlier."""
        shift = f"interval '{seconds} seconds'"
        self.world.sql(f"UPDATE incarnations SET lease_until = lease_until - {shift} WHERE state <> 'ended'")
        if silent:
            self.world.sql(f"UPDATE pulse SET beat_at = beat_at - {shift}")
            if self.at is not None:
                ((self.at,),) = self.world.sql(f"SELECT CAST(:at AS timestamptz) - {shift}", at=self.at)
        self.world.sql(f"UPDATE pulse SET outage_from = outage_from - {shift}, grace_until = grace_until - {shift}")


@pytest.fixture
def clock(world: Any) -> Clock:
    clock = Clock(world)
    clock.beat()
    return clock


def _worker(world: Any) -> str:
    worker = world.worker()
    world.claim_all(worker)
    world.tick(worker, lease_s=LEASE_S)
    # Of a bill that ended long ago, so that a lease may end before now.
    world.sql(
        "UPDATE incarnations SET started_at = started_at - interval '1 hour',"
        " billed_until = billed_until - interval '1 hour', lease_until = clock_timestamp() + interval '30 s'"
    )
    world.sql(
        "UPDATE ledger_entries SET from_at = from_at - interval '1 hour', until_at = until_at - interval '1 hour'"
    )
    return str(worker)


def _sweep(world: Any) -> list[Any]:
    return sweep(world.engine, shard_tokens=world.shard_tokens)


def _outcomes(world: Any) -> list[str]:
    return [row.outcome for row in world.sql("SELECT outcome FROM attempts ORDER BY id")]


def test_a_worker_that_comes_back_after_an_outage_keeps_its_jobs(world: Any, clock: Clock) -> None:
    batch = world.batch(2)
    worker = _worker(world)
    clock.pass_s(LEASE_S + 15)
    clock.beat()
    assert _sweep(world) == [], "a worker has a lease's time to come back"
    reply = world.tick(worker, settled=[world.passed(job) for job in world.jobs(batch)])
    assert reply.lease_until > reply.now
    assert _outcomes(world) == ["settled", "settled"]


def test_a_worker_may_come_back_before_any_dispatcher_does(world: Any, clock: Clock) -> None:
    world.batch(2)
    worker = _worker(world)
    clock.pass_s(LEASE_S + 15)
    assert _sweep(world) == [], "whether there was an outage is not known before the next beat"
    world.tick(worker)
    clock.restart_dispatcher()
    clock.beat()
    world.tick(worker)
    assert _sweep(world) == []


def test_a_worker_that_does_not_return_after_an_outage_hands_its_jobs_on_without_a_loss(
    world: Any, clock: Clock
) -> None:
    world.batch(2)
    worker = _worker(world)
    clock.pass_s(LEASE_S + 15)
    clock.beat()
    clock.pass_s(LEASE_S + 1, silent=False)
    with pytest.raises(LeaseLost):
        world.tick(worker)
    (swept,) = _sweep(world)
    assert (swept.num_jobs_handed_on, swept.num_jobs_failed) == (2, 0)
    assert _outcomes(world) == ["preempted", "preempted"]
    world.billed(worker)


def test_a_lease_that_ends_while_postgres_works_is_a_loss_and_is_not_extended(world: Any, clock: Clock) -> None:
    world.batch(2)
    worker = _worker(world)
    clock.pass_s(LEASE_S + 15, silent=False)
    with pytest.raises(LeaseLost):
        world.tick(worker)
    assert len(_sweep(world)) == 1
    assert _outcomes(world) == ["lost", "lost"]


def test_a_lease_that_ends_after_the_grace_of_an_outage_is_a_loss(world: Any, clock: Clock) -> None:
    world.batch(2)
    worker = _worker(world)
    clock.pass_s(20)
    clock.beat()
    world.tick(worker, lease_s=LEASE_S)
    clock.pass_s(2 * LEASE_S, silent=False)
    with pytest.raises(LeaseLost):
        world.tick(worker)
    assert len(_sweep(world)) == 1
    assert _outcomes(world) == ["lost", "lost"]


def test_a_gap_shorter_than_half_a_lease_is_no_excuse(world: Any, clock: Clock) -> None:
    world.batch(2)
    worker = _worker(world)
    clock.pass_s(LEASE_S - 10, silent=False)
    clock.pass_s(LEASE_S / 2 - 2)
    with pytest.raises(LeaseLost):
        world.tick(worker)
    clock.beat()
    assert len(_sweep(world)) == 1
    assert _outcomes(world) == ["lost", "lost"]


def test_a_gap_without_a_dispatcher_is_an_outage_only_if_postgres_was_started_in_it(world: Any, clock: Clock) -> None:
    world.sql("UPDATE pulse SET beat_at = pg_postmaster_start_time() + interval '1 millisecond'")
    with world.engine.begin() as connection:
        beat(connection, lease_s=0.01, beat_before=FIRST)
    assert world.sql("SELECT 1 FROM pulse WHERE outage_from IS NOT NULL") == []

    world.sql("UPDATE pulse SET beat_at = pg_postmaster_start_time() - interval '20 seconds'")
    clock.restart_dispatcher()
    clock.beat()
    assert world.sql("SELECT 1 FROM pulse WHERE outage_from IS NOT NULL") != []


def test_an_outage_in_the_grace_after_another_one_is_part_of_it(world: Any, clock: Clock) -> None:
    world.batch(2)
    worker = _worker(world)
    for _ in range(3):
        clock.pass_s(LEASE_S - 5)
        clock.beat()
    world.tick(worker)
    assert _sweep(world) == []


def test_a_worker_whose_engine_died_is_a_loss_whatever_postgres_did(world: Any, clock: Clock) -> None:
    """Otherwise a job that kills engines would circulate for as long as Postgres has trouble."""
    world.batch(2)
    worker = _worker(world)
    clock.pass_s(20)
    clock.beat()
    with world.engine.begin() as connection:
        abandon(connection, worker, reason="engine_died")
    with pytest.raises(LeaseLost):
        world.tick(worker)
    assert len(_sweep(world)) == 1
    assert _outcomes(world) == ["lost", "lost"]
    assert [row.end_reason for row in world.sql("SELECT end_reason FROM incarnations")] == ["engine_died"]


def test_the_pulse_beats_until_it_is_stopped(world: Any) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=keep_beating, args=(world.engine,), kwargs={"lease_s": LEASE_S, "stop": stop})
    thread.start()
    try:
        for _ in range(100):
            if len({row.beat_at for row in world.sql("SELECT beat_at FROM pulse")}) == 1:
                break
            stop.wait(0.1)
        ((first,),) = world.sql("SELECT beat_at FROM pulse")
        for _ in range(100):
            if world.sql("SELECT 1 FROM pulse WHERE beat_at > :first", first=first):
                break
            stop.wait(0.1)
        assert world.sql("SELECT 1 FROM pulse WHERE beat_at > :first AND outage_from IS NULL", first=first)
    finally:
        stop.set()
        thread.join()
