from __future__ import annotations

from typing import Any

import pytest

from ponder.errors import LeaseLost


def test_unsettled_jobs_are_recut_and_continue_from_their_trees(world: Any) -> None:
    batch = world.batch(3)
    worker, next_worker = world.worker(), world.worker()
    first, second, third = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(first)], deltas={second: [{"a": 1}, {"b": 2}]})
    world.tick(worker, deltas={second: [{"c": 3}]})

    assert world.release(worker) == 2

    (shard,) = world.dispatch()
    claimed = world.claim(shard, next_worker)
    assert [job.job_id for job in claimed.jobs] == [second, third]
    assert [job.deltas for job in claimed.jobs] == [[{"a": 1}, {"b": 2}, {"c": 3}], []]
    assert [world.num_lost(job.job_id) for job in claimed.jobs] == [0, 0]
    outcomes = world.sql("SELECT outcome FROM attempts WHERE incarnation_id = :id ORDER BY id", id=worker)
    assert [row.outcome for row in outcomes] == ["settled", "preempted", "preempted"]
    assert world.states(batch) == ["completed", "pending", "pending"]


def test_the_bill_is_closed_and_nothing_can_be_written_any_more(world: Any) -> None:
    worker = world.worker()
    world.tick(worker)
    world.release(worker)

    world.billed(worker)
    (row,) = world.sql("SELECT state, end_reason, ended_at = billed_until AS is_closed FROM incarnations")
    assert tuple(row) == ("ended", "preempted", True)
    assert "draining" in world.kinds(worker)
    for write in (world.tick, world.release):
        with pytest.raises(LeaseLost, match="has ended"):
            write(worker)


def test_jobs_left_of_many_shards_are_recut_together_by_batch(world: Any) -> None:
    tenant = world.tenant()
    batches = [world.batch(20, tenant=tenant, tokens=100) for _ in range(2)]
    worker = world.worker(room_tokens=100_000)
    jobs = world.claim_all(worker)
    assert len(jobs) == 40
    world.tick(worker, settled=[world.passed(job) for job in jobs if job % 4])

    assert world.release(worker) == 10

    shards = world.sql("SELECT batch_id, job_ids FROM shards WHERE state = 'queued' ORDER BY batch_id")
    assert [row.batch_id for row in shards] == batches
    assert sorted(job for row in shards for job in row.job_ids) == [job for job in jobs if job % 4 == 0]


@pytest.mark.parametrize(
    ("num_jobs", "tokens", "sizes"),
    [
        (5, 500, [2, 2, 1]),  # two of them are exactly a shard's 1,000 tokens
        (3, 501, [1, 1, 1]),
        (3, 1_500, [1, 1, 1]),  # each larger than a shard, and alone
        (300, 1, [256, 44]),
    ],
)
def test_recut_shards_are_as_large_as_they_may_be(world: Any, num_jobs: int, tokens: int, sizes: list[int]) -> None:
    world.batch(num_jobs, tokens=tokens)
    worker = world.worker(room_tokens=100_000)
    assert len(world.claim_all(worker)) == num_jobs
    world.release(worker)
    shards = world.sql("SELECT job_ids, estimated_tokens FROM shards WHERE state = 'queued' ORDER BY id")
    assert [len(row.job_ids) for row in shards] == sizes
    assert [row.estimated_tokens for row in shards] == [size * tokens for size in sizes]
