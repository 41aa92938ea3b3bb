"""Sums that settled jobs report to their batch."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ponder.domain.batch.stages import lesson_scope
from ponder.jobs.learn import fold, learn, learned
from ponder.jobs.retention.prune import prune


def _teaching(world: Any, job_id: int, **learned: float) -> Any:
    return replace(world.passed(job_id), learned=learned)


def _sums(world: Any) -> dict[str, dict[str, float]]:
    """Returns the sums by batch, after checking that folding does not change them."""
    batch_ids = [row.id for row in world.sql("SELECT id FROM batches")]
    with world.engine.begin() as connection:
        sums = learned(connection, batch_ids)
        fold(connection)
        assert learned(connection, batch_ids) == sums
    assert world.sql("SELECT 1 FROM lessons") == []
    return sums


def test_lessons_add_up_by_batch_and_the_next_claim_gets_the_sums(world: Any) -> None:
    first, worker = world.batch(30), world.worker()
    early, *_ = shards = world.dispatch()
    claimed = world.claim(early, worker)
    assert claimed.learned == {}

    one, two = (job.job_id for job in claimed.jobs[:2])
    reply = world.tick(worker, settled=[_teaching(world, one, a=1, b=0.1), _teaching(world, two, a=2, c=-0.2)])
    assert reply.learned == {first: {"a": 3, "b": 0.1, "c": -0.2}}
    assert world.tick(worker).learned == {}
    assert world.claim(shards[1], worker).learned == reply.learned[first]

    world.batch()
    told = [world.claim(shard, worker) for shard in world.dispatch()]
    assert [claimed.learned for claimed in told if claimed.jobs[0].batch_id != first] == [{}]


def test_a_report_sent_twice_teaches_once(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    report = world.report(worker, settled=[_teaching(world, first, a=1)])
    world.send(report)
    world.send(report)
    world.num_ticks[worker] += 1
    world.tick(worker, settled=[_teaching(world, first, a=1), _teaching(world, second, a=1)])
    assert _sums(world) == {batch: {"a": 2}}, "a job teaches with its settlement, and settles once"


def test_a_tick_that_is_rolled_back_teaches_nothing(world: Any) -> None:
    from ponder.jobs.tick import tick

    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    with world.engine.connect() as connection:
        tick(connection, world.report(worker, settled=[_teaching(world, job, a=1)]))
        connection.rollback()
    assert _sums(world) == {}


def test_a_refused_report_teaches_nothing(world: Any) -> None:
    batch = world.batch()
    holder, other = world.worker(), world.worker()
    (job,) = world.claim_all(holder)
    world.tick(other, settled=[_teaching(world, job, a=1)])
    assert _sums(world) == {}
    world.cancel(batch)
    world.tick(holder, settled=[_teaching(world, job, a=1)])
    assert _sums(world) == {}


def test_workers_that_settle_at_the_same_time_lose_no_lesson_and_do_not_wait_for_each_other_for_good(
    world: Any,
) -> None:
    tenant = world.tenant()
    batches = [world.batch(60, tenant=tenant) for _ in range(3)]
    workers = [world.worker() for _ in range(4)]
    shards, held = world.dispatch(), {worker: list[int]() for worker in workers}
    while shards:
        for number, shard in enumerate(shards):
            worker = workers[number % len(workers)]
            claimed = world.claim(shard, worker)
            held[worker] += [job.job_id for job in claimed.jobs]
        shards = world.dispatch()
    errors: list[BaseException] = []

    def work(worker: str) -> None:
        try:
            jobs = held[worker]
            for start in range(5):
                world.tick(worker, settled=[_teaching(world, job, a=0.1, b=1) for job in jobs[start::5]])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert _sums(world) == {batch: {"a": 6, "b": 60} for batch in batches}, "sums of decimals are exact"


def test_a_worker_does_not_wait_for_a_lock_on_the_sums(world: Any) -> None:
    batch = world.batch(3)
    worker = world.worker()
    first, second, _ = world.claim_all(worker)
    world.tick(worker, settled=[_teaching(world, first, a=1)])
    assert _sums(world) == {batch: {"a": 1}}
    with world.engine.begin() as frozen:
        frozen.execute(text("SELECT 1 FROM learnings FOR UPDATE"))
        learn(frozen, [(batch, {"a": 10})])
        started_at = time.monotonic()
        reply = world.tick(worker, settled=[_teaching(world, second, a=1)])
        assert reply.learned == {batch: {"a": 2}}
        assert time.monotonic() - started_at < 5
    assert _sums(world) == {batch: {"a": 12}}


def test_folding_at_the_same_time_loses_nothing(world: Any) -> None:
    batch = world.batch()
    errors: list[BaseException] = []

    def teach() -> None:
        try:
            for _ in range(20):
                with world.engine.begin() as connection:
                    learn(connection, [(batch, {"a": 0.1})])
                with world.engine.begin() as connection:
                    fold(connection)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=teach) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert _sums(world) == {batch: {"a": 6}}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_finite_numbers_can_be_taught(world: Any, value: float) -> None:
    with pytest.raises(AssertionError, match="job 1"):
        _teaching(world, 1, a=value)


def test_what_a_batch_taught_is_a_start_for_the_tenants_next_batch_of_the_same_models_and_strategy(world: Any) -> None:
    tenant, worker = world.tenant(), world.worker()
    scope = lesson_scope({"strategy": {"name": "direct"}}, "f1")

    def claimed(**options: Any) -> Any:
        world.batch(**options)
        (shard,) = world.dispatch()
        return world.claim(shard, worker)

    for _ in range(2):
        (job,) = claimed(tenant=tenant).jobs
        world.tick(worker, settled=[_teaching(world, job.job_id, **{f"{scope}:a": 1.5, "other:a": 7})])
        world.finish()
    world.finish()
    assert claimed(tenant=tenant).former == {f"{scope}:a": pytest.approx(3, rel=1e-3)}
    assert claimed().former == {}, "another tenant learns nothing from it"
    assert claimed(tenant=tenant, strategy="adaptive").former == {}
    world.sql("UPDATE tenant_learnings SET learnt_at = learnt_at - interval '2 weeks'")
    assert claimed(tenant=tenant).former == {f"{scope}:a": pytest.approx(3 / 4, rel=1e-3)}


def test_what_was_taught_half_a_year_ago_is_deleted(world: Any) -> None:
    for weeks in (25, 27):
        world.sql(
            """INSERT INTO tenant_learnings (tenant_id, scope, sums, learnt_at)
               VALUES (:tenant, 'a', '{}', clock_timestamp() - :weeks * interval '1 week')""",
            tenant=world.tenant(),
            weeks=weeks,
        )
    prune(world.engine, for_s=0.0)
    (left,) = world.sql("SELECT clock_timestamp() - learnt_at AS age FROM tenant_learnings")
    assert left.age < timedelta(weeks=26)
