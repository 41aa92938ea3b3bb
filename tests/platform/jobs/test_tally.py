"""Totals of batches and numbers of settled jobs. `test_fleet` compares both with the rows, in any order of events."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import text

from ponder.jobs import tally as module
from ponder.jobs.tally import numbered, tally
from ponder.jobs.tick import tick


def _is_final(world: Any, batch: str) -> bool:
    tenant = world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=batch)[0].tenant_id
    with world.engine.connect() as connection:
        return numbered(connection, tenant, batch).is_final


def test_jobs_are_numbered_in_the_order_in_which_their_ticks_commit(world: Any) -> None:
    batch = world.batch(4)
    early, late = world.worker(), world.worker()
    first, second, third, fourth = world.claim_all(early)
    world.sql(
        "UPDATE attempts SET incarnation_id = :late WHERE job_id = ANY(CAST(:ids AS bigint[]))",
        late=late,
        ids=[third, fourth],
    )
    with world.engine.begin() as held_open:
        tick(held_open, world.report(early, settled=[world.passed(first), world.passed(second)]))
        world.tick(late, settled=[world.passed(third)])
        world.tally()
        assert world.numbered(batch) == [third]
    world.num_ticks[early] += 1
    world.tick(late, settled=[world.passed(fourth)])
    world.tally()
    assert world.numbered(batch) == [third, first, second, fourth], "nothing is left out, and no number changes"


def test_a_tick_that_is_rolled_back_leaves_no_number(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    with world.engine.connect() as connection:
        tick(connection, world.report(worker, settled=[world.passed(first)]))
        connection.rollback()
    world.tick(worker, settled=[world.passed(second)])
    world.tally()
    assert world.numbered(batch) == [second]


def test_numbering_waits_for_no_tick_and_no_tick_for_numbering(world: Any) -> None:
    world.batch(3)
    worker = world.worker()
    first, second, third = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(first)])
    with world.engine.begin() as frozen:
        tally(frozen)
        frozen.execute(text("SELECT 1 FROM batch_totals FOR UPDATE"))
        started_at = time.monotonic()
        world.tick(worker, settled=[world.passed(second)], work=world.work(second))
        assert time.monotonic() - started_at < 5
    with world.engine.begin() as frozen:
        tick(frozen, world.report(worker, settled=[world.passed(third)]))
        started_at = time.monotonic()
        world.tally()
        assert time.monotonic() - started_at < 0.9, "it would give up on a lock after a second"


def test_a_batch_is_final_when_its_last_job_has_a_number(world: Any) -> None:
    batch, stopped = world.batch(), world.batch(3)
    worker = world.worker()
    assert not _is_final(world, batch)
    world.tick(worker, settled=[world.passed(job) for job in world.claim_all(worker) if job in world.jobs(batch)])
    world.finish()
    assert world.state(batch) == "completed"
    assert not _is_final(world, batch)
    world.tally()
    assert _is_final(world, batch)

    world.cancel(stopped)
    world.tick(worker)
    world.finish()
    assert world.state(stopped) == "cancelled"
    assert not _is_final(world, stopped)
    world.tally()
    assert _is_final(world, stopped)
    assert world.numbered(stopped) == world.jobs(stopped), "jobs that never began are numbered by line"


def test_jobs_that_settle_at_once_are_numbered_in_runs_of_a_thousand(world: Any) -> None:
    batch = world.batch(2_500)
    world.cancel(batch)
    world.finish()
    world.tally()
    assert world.numbered(batch) == world.jobs(batch)
    assert [row.last_number for row in world.sql("SELECT last_number FROM result_runs ORDER BY 1")] == [
        1000,
        2000,
        2500,
    ]


def test_tallies_that_do_not_fit_into_one_round_wait_for_the_next(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = world.batch(), world.batch()
    worker = world.worker()
    world.tally()
    for job in world.claim_all(worker):
        world.tick(worker, settled=[world.passed(job)])
    monkeypatch.setattr(module, "_AT_A_TIME", 1)
    monkeypatch.setattr(module, "_FOLD", text(str(module._FOLD).replace("LIMIT 10000", "LIMIT 1")))
    with world.engine.begin() as connection:
        assert tally(connection)
    assert [len(world.numbered(batch)) for batch in (first, second)] == [1, 0]
    assert world.totals(second) == world.counted(second)


def test_folding_at_the_same_time_numbers_every_job_once(world: Any) -> None:
    batch = world.batch(40)
    worker = world.worker()
    jobs = world.claim_all(worker)
    errors: list[BaseException] = []
    stop = threading.Event()

    def fold() -> None:
        try:
            while not stop.is_set():
                world.tally()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for job in jobs:
        world.tick(worker, settled=[world.passed(job)])
    stop.set()
    for thread in threads:
        thread.join(60)
    world.tally()
    assert errors == []
    assert world.numbered(batch) == jobs
    assert world.totals(batch) == world.counted(batch)
