from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from waiting import until

from ponder.jobs.dispatching.sweep import lost_messages, sweep
from ponder.jobs.incarnation import hold
from ponder.queue.celery_app import queue_name
from ponder.store.database import connect


def _sweep(world: Any) -> list[Any]:
    return sweep(world.engine, shard_tokens=world.shard_tokens)


def _die(world: Any) -> list[int]:
    """Lets a worker claim everything and die, and sweeps."""
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.lapse(worker)
    _sweep(world)
    world.billed(worker)
    return jobs


def test_the_jobs_of_a_dead_worker_are_handed_on_and_its_bill_ends_with_its_lease(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), deltas={jobs[0]: [{"a": 1}]})
    assert _sweep(world) == []
    world.lapse(worker)

    (swept,) = _sweep(world)

    assert (swept.incarnation_id, swept.num_jobs_handed_on) == (worker, 2)
    (row,) = world.sql("SELECT state, billed_until = lease_until AS is_closed FROM incarnations")
    assert tuple(row) == ("ended", True)
    assert world.kinds(worker)["lost"] > 0
    world.billed(worker)
    assert world.claim_all(world.worker()) == world.jobs(batch)


def test_a_worker_that_died_while_loading_costs_until_its_lease_ended(world: Any) -> None:
    worker = world.loading_worker()
    world.lapse(worker)
    _sweep(world)
    assert world.kinds(worker).keys() == {"lost"}
    assert world.billed(worker) > 0


def test_a_job_lost_twice_runs_alone_and_fails_when_lost_again(world: Any) -> None:
    world.batch(3)
    _die(world)
    assert len(world.sql("SELECT 1 FROM shards WHERE state = 'queued'")) == 1
    _die(world)
    alone = world.sql("SELECT cardinality(job_ids) AS n, runs_alone FROM shards WHERE state = 'queued'")
    assert [(row.n, row.runs_alone) for row in alone] == [(1, True)] * 3

    worker = world.worker()
    first, _ = world.dispatch()
    (unlucky,) = world.claim(first, worker).jobs
    assert world.num_lost(unlucky.job_id) == 2
    world.tick(worker, deltas={unlucky.job_id: [{"nodes": [{"node": 1, "ids": [5, 6]}]}]})
    world.lapse(worker)
    (swept,) = _sweep(world)

    assert (swept.num_jobs_handed_on, swept.num_jobs_failed) == (0, 1)
    (row,) = world.sql("SELECT * FROM jobs JOIN results ON job_id = id JOIN usage USING (job_id)")
    assert (row.state, row.completion_tokens) == ("failed", 2)
    assert row.error == {"code": "worker_lost", "message": "3 workers died while they held this job"}
    assert world.sql("SELECT 1 FROM tree_deltas") == []
    assert {row.outcome for row in world.sql("SELECT outcome FROM attempts")} == {"lost"}


def test_preemptions_do_not_count_as_losses(world: Any) -> None:
    world.batch(2)
    for _ in range(5):
        worker = world.worker()
        assert len(world.claim_all(worker)) == 2
        world.release(worker)
    (shard,) = world.dispatch()
    assert [world.num_lost(job.job_id) for job in world.claim(shard, world.worker()).jobs] == [0, 0]


def test_a_message_is_published_again_when_its_queue_is_empty(world: Any) -> None:
    world.batch()
    (shard,) = world.dispatch()
    queue = queue_name("demo", "f1", "batch")
    world.sql("UPDATE shards SET published_at = published_at - interval '1 minute'")

    def republished(num_waiting: int, after_s: float = 10) -> list[int]:
        with world.engine.begin() as connection:
            lost = lost_messages(
                connection, lambda queues: dict.fromkeys(queues, num_waiting), republish_after_s=after_s
            )
        assert all(message.queue == queue for message in lost)
        return [message.shard_id for message in lost]

    assert republished(num_waiting=1) == []
    assert republished(num_waiting=0, after_s=100) == []
    assert republished(num_waiting=0) == [shard]
    assert republished(num_waiting=0) == []  # only now


def test_a_message_is_published_again_when_later_ones_were_claimed_long_ago(world: Any) -> None:
    world.batch(20)
    worker = world.worker()
    first, second = world.dispatch()
    world.claim(second, worker)
    world.sql(
        "UPDATE shards SET published_at = published_at - interval '1 minute', held_at = held_at - interval '30 s'"
    )

    with world.engine.begin() as connection:
        lost = lost_messages(connection, lambda queues: dict.fromkeys(queues, 7), republish_after_s=10)
    assert [message.shard_id for message in lost] == [first]


def test_a_lock_that_somebody_holds_keeps_no_other_dead_worker_from_being_swept(world: Any, impatient: Engine) -> None:
    world.batch(2, tokens=world.shard_tokens)
    first, second = world.worker(), world.worker()
    one, other = sorted(world.dispatch())
    world.claim(one, first)
    world.claim(other, second)
    for worker in (first, second):
        world.lapse(worker)
    with world.engine.begin() as frozen:
        frozen.execute(text("SELECT 1 FROM shards WHERE id = :id FOR UPDATE"), {"id": one})
        with pytest.raises(DBAPIError):
            sweep(impatient, shard_tokens=world.shard_tokens)
        states = {row.id: row.state for row in world.sql("SELECT id, state FROM incarnations")}
        assert (states[first], states[second]) == ("ready", "ended")
    assert [swept.incarnation_id for swept in _sweep(world)] == [first]


def test_a_worker_that_is_frozen_inside_a_transaction_is_swept_soon_after_its_lease(
    world: Any, impatient: Engine
) -> None:
    world.batch()
    worker = world.worker()
    world.claim_all(worker)
    frozen = impatient.connect()
    try:
        hold(frozen, worker)
        frozen.execute(text("UPDATE incarnations SET lease_until = clock_timestamp() WHERE id = :id"), {"id": worker})
        assert _is_locked(world, worker)
        until(lambda: not _is_locked(world, worker), 10)
    finally:
        frozen.invalidate()
        frozen.close()
    world.lapse(worker)
    assert [swept.incarnation_id for swept in _sweep(world)] == [worker]


def _is_locked(world: Any, worker: str) -> bool:
    return not world.sql("SELECT 1 FROM incarnations WHERE id = :id FOR UPDATE SKIP LOCKED", id=worker)


@pytest.fixture
def impatient(database_url: str) -> Iterator[Engine]:
    """An engine with the limits of a worker with a short lease."""
    engine = connect(database_url, timeout_s=1)
    yield engine
    engine.dispose()
