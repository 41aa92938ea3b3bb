from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from structlog.testing import capture_logs

from ponder.domain.state import IncarnationState, JobState
from ponder.errors import LeaseLost
from ponder.jobs.tick import Settlement, Work, tick


def _grown(*ids: int) -> dict[str, Any]:
    """A delta of the first sample."""
    return {"node": 1, "ids": list(ids)}


def test_generated_tokens_are_counted_while_a_job_runs(world: Any) -> None:
    batch = world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    prompt = {"node": 0, "ids": [7, 7, 7]}
    world.tick(worker, deltas={job: [{"nodes": [prompt, _grown(1, 2)]}, {"nodes": [], "counts": {}}]})
    world.tick(worker, deltas={job: [{"nodes": [_grown(3), {"node": 2, "ids": [4], "parent": 0}]}]})

    rows = world.sql("SELECT batch_id, num_tokens FROM tree_deltas ORDER BY id")
    assert [tuple(row) for row in rows] == [(batch, 2), (batch, 0), (batch, 2)]


def test_a_settled_job_leaves_a_result_a_usage_and_a_tree_and_no_deltas(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.tick(
        worker, deltas={first: [{"nodes": [_grown(1)]}, {"nodes": [_grown(2)]}], second: [{"nodes": [_grown(1, 2)]}]}
    )

    world.tick(worker, settled=[world.passed(first)])

    assert world.states(batch) == ["completed", "pending"]
    assert [row.job_id for row in world.sql("SELECT job_id FROM tree_deltas")] == [second]
    (row,) = world.sql("""
        SELECT * FROM jobs JOIN results ON results.job_id = jobs.id JOIN usage USING (job_id)
        JOIN search_trees USING (job_id)
    """)
    assert (row.verdict, row.answer, row.completion_tokens, row.tree) == ("passed", "2", 7, {"nodes": []})
    attempts = world.sql("SELECT job_id, outcome FROM attempts ORDER BY id")
    assert [tuple(attempt) for attempt in attempts] == [(first, "settled"), (second, None)]


def test_a_shard_is_finished_with_its_last_job(world: Any) -> None:
    world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)

    world.tick(worker, settled=[world.passed(first)])
    assert world.sql("SELECT state FROM shards")[0].state == "held"
    world.tick(worker, settled=[world.passed(second)])
    assert world.sql("SELECT state FROM shards")[0].state == "finished"


def test_time_is_booked_to_the_jobs_by_weight_and_to_idleness(world: Any) -> None:
    world.batch(3)
    worker = world.worker()
    first, second, third = world.claim_all(worker)
    world.tick(worker)
    before = world.billed(worker)

    work = [Work(first, 1.0), Work(second, 3.0), Work(second, 2.0, "recomputed"), Work(third, 0.0)]
    work += [Work(first, 2.0, "speculated")]
    world.tick(worker, work=work, idle_fraction=0.25)

    amount = world.billed(worker) - before
    rows = world.sql("SELECT job_id, kind, nanodollars FROM ledger_entries ORDER BY id DESC LIMIT 5")
    booked = {(row.job_id, row.kind): row.nanodollars for row in rows}
    assert booked[None, "idle"] == pytest.approx(amount / 4, abs=1)
    assert booked[first, "work"] == pytest.approx(amount * 3 / 32, abs=1)
    assert booked[first, "speculated"] == pytest.approx(amount * 3 / 16, abs=1)
    assert booked[second, "work"] == pytest.approx(amount * 9 / 32, abs=1)
    assert booked[second, "recomputed"] == pytest.approx(amount * 3 / 16, abs=1)


def test_work_of_no_weight_costs_its_jobs_nothing(world: Any) -> None:
    world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.tick(worker, work=[Work(first, 0.0), Work(second, 0.0)], idle_fraction=0.25)
    assert world.kinds(worker).keys() == {"loading", "idle"}


def test_time_that_no_job_caused_is_loading_idle_or_draining(world: Any) -> None:
    worker = world.loading_worker()
    world.tick(worker, state=IncarnationState.LOADING)
    assert set(world.kinds(worker)) == {"loading"}
    world.ready(worker)
    world.tick(worker)
    world.tick(worker, state=IncarnationState.DRAINING)
    assert set(world.kinds(worker)) == {"loading", "idle", "draining"}
    world.billed(worker)


def test_a_late_tick_is_refused_and_writes_nothing(world: Any) -> None:
    batch = world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    world.lapse(worker)

    with pytest.raises(LeaseLost):
        world.tick(worker, settled=[world.passed(job)], work=world.work(job), deltas={job: [{}]})

    assert world.states(batch) == ["pending"]
    assert world.sql("SELECT * FROM tree_deltas UNION ALL SELECT * FROM tree_deltas") == []


def test_only_progress_extends_the_lease(world: Any) -> None:
    worker = world.worker()
    first = world.tick(worker, lease_s=4000)
    stuck = world.tick(worker, lease_s=5000, progressed=False)
    again = world.tick(worker, lease_s=5000)

    assert stuck.lease_until == first.lease_until
    assert again.lease_until > first.lease_until


def test_a_report_sent_twice_has_one_effect_and_one_reply(world: Any) -> None:
    batch = world.batch(3)
    worker = world.worker()
    first, second, third = world.claim_all(worker)
    world.sql("UPDATE jobs SET state = 'cancelled' WHERE id = :id", id=third)
    report = world.report(
        worker, settled=[world.passed(first)], work=world.work(first, second), deltas={second: [{"nodes": []}]}
    )

    reply = world.send(report)
    billed = world.billed(worker)
    again = world.send(report)

    assert reply.dropped == again.dropped == (third,)
    assert world.billed(worker) == billed
    assert len(world.sql("SELECT 1 FROM tree_deltas")) == 1
    assert world.states(batch) == ["completed", "pending", "cancelled"]


def test_reports_come_in_order(world: Any) -> None:
    worker = world.worker()
    world.num_ticks[worker] = 5
    with pytest.raises(AssertionError, match="tick 6 after 0"):
        world.tick(worker)


def test_work_for_a_cancelled_job_is_booked_as_such_and_the_job_is_dropped_once(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.cancel(batch)

    reply = world.tick(worker, work=world.work(first, second), settled=[world.passed(first)])

    assert reply.dropped == (first, second)
    assert world.tick(worker, work=world.work(second)).dropped == ()
    assert set(world.kinds(worker)) <= {"cancelled", "idle", "loading"}
    world.finish()
    assert world.states(batch) == ["cancelled", "cancelled"]
    assert world.sql("SELECT 1 FROM results") == []
    outcomes = world.sql("SELECT outcome FROM attempts UNION ALL SELECT state FROM shards")
    assert [row.outcome for row in outcomes] == ["cancelled", "cancelled", "finished"]
    world.billed(worker)


def test_a_job_that_is_settled_already_keeps_its_result_and_the_work_is_a_duplicate(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(job)])

    late = Settlement(job, JobState.FAILED, error={"code": "late", "message": "too late"})
    world.tick(worker, settled=[late], work=world.work(job))

    assert world.sql("SELECT state FROM jobs")[0].state == "completed"
    assert world.kinds(worker)["duplicate"] > 0
    world.billed(worker)


def test_a_job_that_another_holds_cannot_be_settled(world: Any) -> None:
    batch = world.batch()
    holder, other = world.worker(), world.worker()
    (job,) = world.claim_all(holder)

    world.tick(other, settled=[world.passed(job)], deltas={job: [{"nodes": []}]})

    assert world.states(batch) == ["pending"]
    assert world.sql("SELECT 1 FROM tree_deltas") == []


def test_reached_limits_of_dollars_and_time_are_repeated_until_the_job_is_settled(world: Any) -> None:
    world.batch(budget={"dollars": 1e-9})
    world.batch(budget={"deadline_s": 1e-6})
    world.batch(budget={"dollars": 1000, "deadline_s": 1000})
    worker = world.worker()
    jobs = world.claim_all(worker)

    world.sql("SELECT pg_sleep(0.01)")
    reply = world.tick(worker, work=world.work(*jobs))
    assert sorted(reply.ended.values()) == ["deadline", "dollars"]
    assert world.tick(worker).ended == reply.ended
    assert world.tick(worker, settled=[world.passed(job) for job in jobs]).ended == {}


def test_no_text_of_a_model_stops_a_tick(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    strange = {"text": "a\x00b\ud800", "logprob": float("-inf"), "score": float("nan"), "\x00": ["\\u0000"]}
    world.tick(worker, deltas={job: [strange]})
    settlement = Settlement(job, JobState.FAILED, answer="\x00\udfff", error=strange, tree=strange)
    world.tick(worker, settled=[settlement])

    (row,) = world.sql("SELECT answer, tree FROM results JOIN search_trees USING (job_id)")
    assert row.answer == "\ufffd\ufffd"
    assert row.tree == {"text": "a\ufffdb\ufffd", "logprob": None, "score": None, "\ufffd": ["\\u0000"]}


def test_a_tick_that_fails_half_way_leaves_nothing_behind(world: Any) -> None:
    batch = world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    before = world.billed(worker)

    with world.engine.connect() as connection:
        tick(connection, world.report(worker, settled=[world.passed(job)], work=world.work(job)))
        connection.rollback()

    assert world.states(batch) == ["pending"]
    assert world.billed(worker) == before


def test_a_tree_to_which_several_incarnations_contributed_says_who_made_what(world: Any) -> None:
    world.batch()
    first, second = world.worker(), world.worker()
    (job,) = world.claim_all(first)
    others = [{"node": 0, "ids": [7]}, {"node": 2, "ids": [4, 5, 6], "parent": 0, "ordinal": 1}]
    world.tick(first, deltas={job: [{"nodes": [others[0], _grown(1, 2), others[1]]}]})
    world.release(first)
    world.claim_all(second)
    nodes = [{"tokens": 0}, {"tokens": 4}, {"tokens": 3}, {"tokens": 5}]
    tree = {"nodes": [{"parent": index - 1, "ordinal": 0} | node for index, node in enumerate(nodes)]}
    world.tick(second, settled=[replace(world.passed(job), tree=tree)])

    [row] = world.sql("SELECT tree FROM search_trees")
    assert row.tree == tree | {
        "made_by": [
            {"incarnation_id": first, "first_node": 1},
            {"incarnation_id": second, "first_node": 3, "continued": [[1, 2]]},
        ]
    }


def test_a_job_settles_without_its_makers_if_an_old_delta_is_odd(world: Any) -> None:
    world.batch(2)
    first, second = world.worker(), world.worker()
    odd, sound = world.claim_all(first)
    world.tick(first, deltas={job: [{"nodes": [_grown(1, 2)]}] for job in (odd, sound)})
    world.release(first)
    world.claim_all(second)
    world.sql("UPDATE tree_deltas SET delta = '{\"nodes\": [{}]}' WHERE job_id = :id", id=odd)
    tree = {"nodes": [{"parent": -1, "ordinal": 0, "tokens": 0}, {"parent": 0, "ordinal": 0, "tokens": 4}]}
    with capture_logs() as lines:
        world.tick(second, settled=[replace(world.passed(job), tree=tree) for job in (odd, sound)])

    trees = {row.job_id: row.tree for row in world.sql("SELECT job_id, tree FROM search_trees")}
    assert trees[odd] == tree
    assert [part["incarnation_id"] for part in trees[sound]["made_by"]] == [first, second]
    assert [(line["event"], line["job"]) for line in lines] == [("makers_unknown", odd)]


def test_only_jobs_that_others_had_are_asked_for_their_makers(world: Any) -> None:
    asked: list[Any] = []

    def note(*told: Any) -> None:
        if "incarnation_id, delta FROM tree_deltas" in told[2]:
            asked.append(told[3])

    world.batch(2)
    worker = world.worker()
    jobs = world.claim_all(worker)
    tree = {"nodes": [{"parent": -1, "ordinal": 0, "tokens": 0}]}
    event.listen(world.engine, "before_cursor_execute", note)
    try:
        world.tick(worker, settled=[replace(world.passed(jobs[0]), tree=tree)])
        assert asked == []
        world.release(worker)
        other = world.worker()
        world.claim_all(other)
        world.tick(other, settled=[replace(world.passed(jobs[1]), tree=tree)])
    finally:
        event.remove(world.engine, "before_cursor_execute", note)
    assert len(asked) == 1
