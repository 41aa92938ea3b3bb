from __future__ import annotations

from typing import Any

import pytest

from ponder.domain.state import IncarnationState, Lane
from ponder.errors import LeaseLost
from ponder.jobs.claim import keep
from ponder.jobs.dispatching.sweep import lost_messages


def test_the_holder_gets_the_pending_jobs_with_all_that_an_engine_needs(world: Any) -> None:
    batch = world.batch(3, budget={"dollars": 0.5, "deadline_s": 60})
    worker = world.worker()
    (shard,) = world.dispatch()

    claimed = world.claim(shard, worker)

    assert [job.job_id for job in claimed.jobs] == world.jobs(batch)
    assert claimed.jobs[0].request["messages"] == [{"role": "user", "content": "1 + 1?"}]
    assert claimed.jobs[0].deltas == []


def test_the_holder_learns_when_a_job_was_submitted_and_how_its_former_attempts_ended(world: Any) -> None:
    batch = world.batch(2, lane="interactive")
    for _ in range(2):
        worker = world.worker()
        assert len(world.claim_all(worker)) == 2
        world.release(worker)
    world.sql("UPDATE attempts SET outcome = 'lost' WHERE id = (SELECT min(id) FROM attempts)")
    worker = world.worker()
    jobs = [job for shard in world.dispatch() for job in world.claim(shard, worker).jobs]
    created_at = [row.created_at for row in world.sql("SELECT created_at FROM jobs ORDER BY id")]
    assert [job.job_id for job in jobs] == world.jobs(batch)
    assert [job.created_at for job in jobs] == created_at
    assert {job.lane for job in jobs} == {Lane.INTERACTIVE}
    assert [set(job.former_outcomes) for job in jobs] == [{"lost", "preempted"}, {"preempted"}]


def test_a_duplicate_message_gives_another_worker_nothing(world: Any) -> None:
    world.batch()
    worker, other = world.worker(), world.worker()
    (shard,) = world.dispatch()

    assert world.claim(shard, worker) is not None
    assert world.claim(shard, other) is None
    assert world.claim(12345, other) is None


def test_the_holder_that_did_not_hear_of_its_claim_gets_the_same_again(world: Any) -> None:
    world.batch(2)
    worker = world.worker()
    (shard,) = world.dispatch()

    assert world.claim(shard, worker) == world.claim(shard, worker)
    assert len(world.sql("SELECT 1 FROM attempts")) == 2


def test_a_cancelled_batch_leaves_nothing_to_claim_and_the_shard_is_finished(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    (shard,) = world.dispatch()
    world.sql("UPDATE jobs SET state = 'cancelled' WHERE batch_id = :id", id=batch)

    assert world.claim(shard, worker) is None
    assert world.sql("SELECT state FROM shards")[0].state == "finished"


def test_a_worker_whose_lease_has_ended_may_not_claim(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (shard,) = world.dispatch()
    world.lapse(worker)

    with pytest.raises(LeaseLost, match="ended at"):
        world.claim(shard, worker)
    with pytest.raises(LeaseLost, match="there is no incarnation"):
        world.claim(shard, "inc_nobody")
    assert world.sql("SELECT state FROM shards")[0].state == "queued"


def test_a_worker_with_other_weights_hands_the_shard_back_at_once(world: Any) -> None:
    world.batch()
    (shard,) = world.dispatch()

    assert world.claim(shard, world.worker(fingerprint="f2")) is None
    assert world.dispatch() == [shard]
    assert world.claim(shard, world.worker()) is not None


def test_a_worker_that_drains_hands_the_shard_back_at_once(world: Any) -> None:
    world.batch()
    worker = world.worker()
    world.tick(worker, state=IncarnationState.DRAINING)
    (shard,) = world.dispatch()

    assert world.claim(shard, worker) is None
    assert world.dispatch() == [shard]
    assert world.claim(shard, world.worker()) is not None


def test_a_deadline_beyond_any_calendar_is_no_limit(world: Any) -> None:
    world.batch(budget={"dollars": 1e300, "deadline_s": 1e300})
    worker = world.worker()

    assert len(world.claim_all(worker)) == 1
    assert world.tick(worker).ended == {}


def test_a_suspect_and_other_shards_are_never_held_together(world: Any) -> None:
    world.batch(2, tokens=world.shard_tokens)
    suspect, other = sorted(world.dispatch())
    world.sql("UPDATE shards SET runs_alone = (id = :id)", id=suspect)
    worker = world.worker()
    assert world.claim(other, worker) is not None
    assert world.claim(suspect, worker) is None
    assert world.dispatch() == [suspect], "somebody else may have it at once"

    second = world.worker()
    assert world.claim(suspect, second) is not None
    world.batch(1)
    (third,) = world.dispatch()
    assert world.claim(third, second) is None
    assert world.claim(suspect, second) is not None, "the answer to the first claim may have been lost"


def test_a_message_kept_by_a_worker_does_not_count_as_lost(world: Any) -> None:
    world.batch(1)
    (shard,) = world.dispatch()
    world.sql("UPDATE shards SET published_at = published_at - interval '1 minute'")
    with world.engine.begin() as connection:
        assert keep(connection, shard)
        assert lost_messages(connection, lambda queues: dict.fromkeys(queues, 0), republish_after_s=10) == []
    world.claim(shard, world.worker())
    with world.engine.begin() as connection:
        assert not keep(connection, shard)
