from __future__ import annotations

from typing import Any

import pytest

from ponder.jobs.dispatching.dispatch import LaneShares
from ponder.jobs.tick import Work


def _tenants(world: Any, shards: list[int]) -> list[str]:
    rows = world.sql("SELECT id, tenant_id FROM shards")
    tenant_of = {row.id: row.tenant_id for row in rows}
    return [tenant_of[shard] for shard in shards]


def _sizes(world: Any) -> list[int]:
    return [row.n for row in world.sql("SELECT cardinality(job_ids) AS n FROM shards ORDER BY id")]


def test_shards_are_cut_by_estimated_tokens(world: Any) -> None:
    world.batch(25, tokens=100)  # shards of 1,000
    assert len(world.claim_all(world.worker())) == 25
    assert _sizes(world) == [10, 10, 5]


def test_a_shard_has_at_most_256_jobs_and_at_least_one(world: Any) -> None:
    world.batch(300, tokens=1)
    world.batch(2, tokens=50_000)
    assert len(world.claim_all(world.worker())) == 302
    assert sorted(_sizes(world)) == [1, 1, 44, 256]


def test_two_shards_a_queue_wait_in_redis_even_without_a_worker(world: Any) -> None:
    world.batch(100)
    assert len(world.dispatch()) == 2
    assert world.dispatch() == []


def test_the_window_grows_with_workers_and_their_room(world: Any) -> None:
    world.batch(300)
    world.worker()
    world.worker()
    assert len(world.dispatch()) == 4
    world.worker(room_tokens=5_000)
    assert len(world.dispatch()) == 6  # up to twice the room, in shards of 1,000 tokens


def test_what_is_due_first_goes_first_even_before_what_was_handed_back(world: Any) -> None:
    tenant, worker = world.tenant(), world.worker()
    later = world.batch(10, tenant=tenant, expires_in_s=80_000)
    world.claim_all(worker)
    world.release(worker)
    sooner = world.batch(10, tenant=tenant, expires_in_s=40_000)
    world.batch(10, tenant=tenant, expires_in_s=86_000)
    shards = world.dispatch()
    batch_of = {row.id: row.batch_id for row in world.sql("SELECT id, batch_id FROM shards")}
    assert [batch_of[shard] for shard in shards] == [sooner, later]


def test_a_dead_worker_and_one_with_other_weights_open_no_window(world: Any) -> None:
    world.batch(300)
    world.lapse(world.worker(room_tokens=100_000))
    world.worker(fingerprint="f2", room_tokens=100_000)
    assert len(world.dispatch()) == 2


def test_tenants_take_turns_however_much_each_has_waiting(world: Any) -> None:
    rich, poor = world.tenant(), world.tenant()
    world.batch(1000, tenant=rich)
    world.batch(20, tenant=poor)
    world.worker(room_tokens=2_000)
    assert sorted(_tenants(world, world.dispatch())) == sorted([rich, rich, poor, poor])


def test_a_tenant_has_no_more_in_flight_than_its_quota_and_a_shard(world: Any) -> None:
    bounded, free = world.tenant(), world.tenant()
    world.sql("UPDATE tenants SET quota_tokens = 1500 WHERE id = :id", id=bounded)
    world.batch(100, tokens=100, tenant=bounded)  # shards of 1,000
    world.batch(30, tokens=100, tenant=free)
    world.worker(room_tokens=20_000)
    assert sorted(_tenants(world, world.dispatch())) == sorted([bounded, bounded, free, free, free])
    world.sql("UPDATE tenants SET quota_tokens = NULL WHERE id = :id", id=bounded)
    assert set(_tenants(world, world.dispatch())) == {bounded}


def test_the_tenant_that_cost_least_lately_is_next(world: Any) -> None:
    spender, saver = world.tenant(), world.tenant()
    worker = world.worker()
    world.batch(1, tenant=spender)
    (job,) = world.claim_all(worker)
    world.tick(worker, work=world.work(job), settled=[world.passed(job)])

    world.batch(100, tenant=spender)
    world.batch(100, tenant=saver)
    assert _tenants(world, world.dispatch()) == [saver, saver]


def test_interactive_jobs_have_a_window_of_their_own_and_go_first(world: Any) -> None:
    slow, quick = world.tenant(), world.tenant()
    world.batch(100, tenant=slow)
    assert len(world.dispatch()) == 2
    world.batch(100, tenant=quick, lane="interactive")
    world.batch(100, tenant=quick)
    world.worker()
    assert _tenants(world, world.dispatch()) == [quick, quick]


def test_a_model_without_a_worker_holds_up_no_other_model_of_the_batch(world: Any) -> None:
    batch = world.batch(100, models=["absent", "demo"])
    jobs = world.claim_all(world.worker())
    assert len(jobs) == 50
    assert jobs == world.jobs(batch)[1::2]


def test_lines_of_a_model_may_lie_far_apart(world: Any) -> None:
    batch = world.batch(9_000, models=["absent"] * 2_999 + ["demo"], tokens=10)
    assert world.claim_all(world.worker()) == world.jobs(batch)[2_999::3_000]


def test_cutting_a_large_batch_does_not_read_it_for_every_shard(world: Any) -> None:
    world.batch(20_000, tokens=4)
    world.worker(room_tokens=35_000)
    assert len(world.dispatch()) == 70
    world.sql("SELECT pg_stat_force_next_flush()")
    (read,) = world.sql(
        "SELECT idx_tup_fetch + seq_tup_read AS num_rows FROM pg_stat_user_tables WHERE relname = 'jobs'"
    )
    assert 70 * 256 <= read.num_rows < 70 * 3_000 + 40_000  # and once all of them, for the portion


def test_nothing_is_cut_for_a_batch_that_is_being_cancelled_or_is_late(world: Any) -> None:
    world.cancel(world.batch(5))
    world.batch(5, expires_in_s=-1)
    assert world.dispatch() == []


def test_shards_that_were_begun_come_before_new_ones(world: Any) -> None:
    tenant = world.tenant()
    world.batch(100, tenant=tenant)
    worker = world.worker()
    begun = world.dispatch()
    for shard in begun:
        world.claim(shard, worker)
    world.release(worker)
    again = world.dispatch()
    rows = world.sql("SELECT job_ids FROM shards WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id", ids=begun + again)
    assert [row.job_ids for row in rows[:2]] == [row.job_ids for row in rows[2:]]


def _lanes(world: Any) -> list[str]:
    return [row.lane for row in world.sql("SELECT lane FROM shards ORDER BY id")]


def test_interactive_work_has_its_share_while_other_work_waits(world: Any) -> None:
    greedy, patient = world.tenant(), world.tenant()
    world.batch(200, tenant=greedy, lane="interactive")  # shards of 1,000 tokens
    world.batch(1, tenant=patient)
    worker = world.worker(room_tokens=8_000)
    first = world.dispatch()
    assert _lanes(world).count("interactive") == 6  # three quarters of the room
    for shard in first:
        world.claim(shard, worker)
    world.tick(worker, room_tokens=1_900)  # all but one of them fit
    assert world.dispatch() != []  # nothing else waits any more


def test_what_workers_hold_counts_as_capacity_that_is_shared(world: Any) -> None:
    world.batch(400)  # shards of 1,000 tokens
    worker = world.worker(room_tokens=8_000)
    for shard in world.dispatch()[:4]:
        world.claim(shard, worker)
    world.tick(worker, room_tokens=4_000)
    world.batch(200, lane="interactive")
    world.dispatch()
    assert _lanes(world).count("interactive") == 6  # three quarters of 8,000


def test_a_batch_in_redis_holds_interactive_work_within_its_share(world: Any) -> None:
    world.batch(1)
    world.worker(room_tokens=8_000)
    world.dispatch()  # it waits in Redis, where workers take interactive shards first
    world.batch(200, lane="interactive")
    assert len(world.dispatch()) == 6
    assert world.dispatch() == []


def test_a_single_job_among_thousands_of_interactive_ones_is_soon_begun(world: Any) -> None:
    """The worker has room for four shards, asks the interactive queue first, and ends one shard per step."""
    greedy, patient = world.tenant(), world.tenant()
    world.batch(6_000, tenant=greedy, lane="interactive", tokens=10)  # 60 shards
    worker = world.worker(room_tokens=4_000)
    waiting, held, begun = world.messages(), [], []
    world.batch(1, tenant=patient)
    while patient not in _tenants(world, begun):
        waiting += world.messages()
        waiting.sort(key=lambda message: not message.queue.endswith("interactive"))
        while len(held) < 4 and waiting:
            begun.append(waiting.pop(0).shard_id)
            held.append([job.job_id for job in world.claim(begun[-1], worker).jobs])
        settled = [world.passed(job) for job in held.pop(0)]
        world.tick(worker, settled=settled, room_tokens=4_000 - 1_000 * len(held))
    assert len(begun) < 15


def test_interactive_work_always_has_one_shard_however_small_the_room(world: Any) -> None:
    world.batch(100)
    world.batch(100, lane="interactive")
    world.worker(room_tokens=500)
    world.dispatch()
    assert _lanes(world).count("interactive") == 1


def test_interactive_work_pauses_for_a_large_shard_that_found_no_room(world: Any) -> None:
    world.batch(10)
    worker = world.worker(room_tokens=900)
    (large,) = world.dispatch()
    world.sql("UPDATE shards SET published_at = published_at - interval '11 seconds'")
    world.batch(10, lane="interactive", tokens=10)
    assert world.dispatch() == []
    world.claim(large, worker)
    assert len(world.dispatch()) == 1


def test_interactive_work_beyond_a_tenants_allowance_goes_in_the_other_lane(world: Any) -> None:
    world.shares = LaneShares(interactive_share=1, interactive_tokens=3_000)
    greedy, modest = world.tenant(), world.tenant()
    world.batch(100, tenant=greedy, lane="interactive")
    world.worker(room_tokens=20_000)
    world.dispatch()
    assert sorted(_lanes(world)) == ["batch"] * 7 + ["interactive"] * 3
    world.batch(10, tenant=modest, lane="interactive")
    world.dispatch()
    assert _lanes(world).count("interactive") == 4


def test_a_released_shard_beyond_the_allowance_is_published_in_the_other_lane(world: Any) -> None:
    tenant = world.tenant()
    world.batch(20, tenant=tenant, lane="interactive")
    worker = world.worker(room_tokens=20_000)
    for shard in world.dispatch():
        world.claim(shard, worker)
    world.release(worker)
    world.shares = LaneShares(interactive_tokens=1_000)
    again = {message.shard_id: message.queue.rpartition(".")[2] for message in world.messages()}
    rows = world.sql("SELECT id, lane FROM shards WHERE state = 'queued'")
    assert {row.id: row.lane for row in rows} == again
    assert sorted(again.values()) == ["batch", "interactive"]


def test_an_interactive_dollar_counts_as_often_as_the_operator_says(world: Any) -> None:
    hasty, patient = world.tenant(), world.tenant()
    worker = world.worker()
    for tenant, lane, weight in ((hasty, "interactive", 1.0), (patient, "batch", 2.0)):
        world.batch(1, tenant=tenant, lane=lane)
        (job,) = world.claim_all(worker)
        world.tick(worker, work=[Work(job, weight)], settled=[world.passed(job)])
    spent = {
        row.tenant_id: row.n
        for row in world.sql(
            "SELECT tenant_id, sum(nanodollars) AS n FROM ledger_entries WHERE tenant_id IS NOT NULL GROUP BY tenant_id"
        )
    }
    factor = 2 * float(spent[patient] / spent[hasty])
    world.batch(100, tenant=hasty)
    world.batch(100, tenant=patient)
    world.shares = LaneShares(interactive_factor=factor)
    assert _tenants(world, world.dispatch()) == [patient, patient]


@pytest.mark.parametrize("held_up_by", ["a pause", "its budget", "no worker", "its quota"])
@pytest.mark.parametrize("is_own", [True, False])
def test_shards_that_cannot_go_out_hold_up_no_others_however_many(world: Any, held_up_by: str, is_own: bool) -> None:
    hog = world.tenant()
    tenant = hog if is_own and held_up_by != "its quota" else world.tenant()
    large = world.batch(1, tenant=hog, models=["rare" if held_up_by == "no worker" else "demo"])
    world.sql("UPDATE portions SET cut_until = last_line")
    world.sql(
        "INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens, least_tokens)"
        " SELECT tenant_id, batch_id, model, fingerprint, 'batch', ARRAY[id], 100, 20 FROM jobs"
        " CROSS JOIN generate_series(1, 10100)"
    )
    world.sql(
        {
            "a pause": "UPDATE batches SET paused_at = now()",
            "its budget": "UPDATE batches SET limit_tokens = 19",
            "no worker": "SELECT 1",
            "its quota": "UPDATE tenants SET quota_tokens = 0",
        }[held_up_by]
    )
    worker, waiting = world.worker(), world.batch(1, tenant=tenant)
    if held_up_by == "its quota":
        world.sql("UPDATE tenants SET quota_tokens = NULL WHERE id = :id", id=tenant)
    (shard,) = (one for one in world.dispatch() if _batch(world, one) != large)
    world.claim(shard, worker)
    world.release(worker)
    assert waiting in [_batch(world, one) for one in world.dispatch()]


def _batch(world: Any, shard: int) -> str:
    return str(world.sql("SELECT batch_id FROM shards WHERE id = :id", id=shard)[0].batch_id)
