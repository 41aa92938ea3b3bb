from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.domain.state import JobState, Verdict
from ponder.errors import InvalidInput
from ponder.jobs.tick import Settlement, Usage, Work
from ponder.ledger.cost_report import cost_report
from ponder.ledger.reporting import LATENCY, QUALITY, ReportRow, Selection, WasteRow, report, waste_report


def _node(parent: int, ordinal: int, tokens: int) -> dict[str, Any]:
    return {"parent": parent, "ordinal": ordinal, "tokens": tokens}


TREE = {
    "nodes": [_node(-1, 0, 0), _node(0, 0, 10), _node(0, 1, 20), _node(2, 0, 5), _node(0, 2, 30), _node(4, 0, 35)],
    "candidates": [{"node": 5}, {"node": 1}, {"node": 3}],
    "rounds": [0, 2],
}
"""Two rounds of two children; the chosen answer is the only path of the second."""


def _settled(job: int, tree: dict[str, Any] = TREE, **more: Any) -> Settlement:
    fields: dict[str, Any] = {"verdict": Verdict.PASSED, "finish_reason": "stop", "choices": ({"text": "2"},)}
    return Settlement(job, JobState.COMPLETED, tree=tree, **(fields | more))


EVERYTHING = Selection()


def _waste(world: Any, selection: Selection = EVERYTHING) -> list[WasteRow]:
    with world.engine.begin() as connection:
        return waste_report(connection, selection)


def _report(world: Any, wanted: Any, selection: Selection = EVERYTHING) -> list[ReportRow]:
    with world.engine.begin() as connection:
        return report(connection, wanted, selection)


def test_a_jobs_work_is_split_by_the_tokens_of_its_tree(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    world.tick(worker, work=world.work(job))
    world.tick(worker, work=[Work(job, 1.0), Work(job, 1.0, "speculated")], settled=[_settled(job)])
    kinds = {row.kind: row.nanodollars for row in _waste(world)}
    work = world.kinds(worker)["work"]
    assert kinds["chosen"] == pytest.approx(work * 65 / 100, abs=2)
    assert kinds["other_rounds"] == pytest.approx(work * 35 / 100, abs=2)
    assert "pruned" not in kinds
    assert kinds["speculated"] == world.kinds(worker)["speculated"]
    assert sum(kinds.values()) == world.billed(worker)


def test_paths_beside_the_returned_answers_are_pruned(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    tree = {**TREE, "rounds": [0], "candidates": [{"node": 3}, {"node": 1}, {"node": 5}]}
    world.tick(worker, work=world.work(job), settled=[_settled(job, tree, choices=({"text": "a"}, {"text": "b"}))])
    (row,) = world.sql("SELECT chosen_tokens, pruned_tokens, other_round_tokens, num_rounds FROM usage")
    assert tuple(row) == (35, 65, 0, 1)


def test_what_judges_generated_is_a_kind_of_its_own_in_every_stage_and_round(world: Any) -> None:
    question = _node(0, 3, 0) | {"prompt": True}
    judged = {**TREE, "nodes": [*TREE["nodes"], question, _node(6, 0, 12), _node(7, 0, 13)]}
    for tree, fates in (
        (judged, (65, 0, 35, 25)),
        (judged | {"rounds": [0]}, (65, 35, 0, 25)),
        ({"stages": [judged, judged], "answered_by": 1}, (65, 0, 135, 50)),
    ):
        world.batch()
        worker = world.worker()
        (job,) = world.claim_all(worker)
        world.tick(worker, work=world.work(job), settled=[_settled(job, tree, usage=Usage(judge_tokens=25))])
        columns = "chosen_tokens, pruned_tokens, other_round_tokens, judged_tokens"
        (row,) = world.sql(f"SELECT {columns} FROM usage WHERE job_id = :job", job=job)
        assert tuple(row) == fates
        (batch,) = world.sql("SELECT batch_id FROM jobs WHERE id = :job", job=job)
        kinds = {row.kind: row.nanodollars for row in _waste(world, Selection(batch_ids=(batch.batch_id,)))}
        work = world.kinds(worker)["work"]
        assert kinds["judged"] == pytest.approx(work * fates[3] / sum(fates), abs=2)
        assert sum(kinds.values()) == work


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_kinds_of_waste_add_up_to_every_workers_bill(world: Any, data: st.DataObject) -> None:
    batch = world.batch(4, strategy=data.draw(st.sampled_from(["direct", "best_of_n"])))
    worker = world.worker(machine=data.draw(st.sampled_from(["h200", "cpu"])))
    jobs = world.claim_all(worker)
    tokens = st.integers(0, 1000)
    for job in jobs:
        fate = data.draw(st.sampled_from(["pending", "failed", "empty", "split"]))
        work = [Work(job, data.draw(st.floats(0, 1e12)), kind) for kind in ("work", "recomputed", "speculated")]
        nodes = [_node(-1, 0, 0), *(_node(0, ordinal, data.draw(tokens)) for ordinal in range(3))]
        nodes += [_node(0, 3, 0) | {"prompt": True}, _node(4, 0, data.draw(tokens))]
        tree = {"nodes": nodes, "candidates": [{"node": data.draw(st.integers(1, 3))}], "rounds": [0, 2]}
        settled = {
            "pending": [],
            "failed": [Settlement(job, JobState.FAILED, error={"code": "x", "message": "x"}, tree=tree)],
            "empty": [_settled(job, {"nodes": []})],
            "split": [_settled(job, tree)],
        }[fate]
        world.tick(worker, work=work, settled=settled, idle_fraction=data.draw(st.floats(0, 1)))
    if data.draw(st.booleans()):
        world.cancel(batch)
    booked = world.sql("SELECT CAST(sum(nanodollars) AS bigint) AS booked FROM ledger_entries")[0].booked
    assert world.billed(worker) > 0
    for by in ((), ("strategy", "machine"), ("batch", "hour")):
        rows = _waste(world, Selection(by))
        assert sum(row.nanodollars for row in rows) == booked
        assert all(row.nanodollars > 0 for row in rows)
    for row in world.sql("SELECT kind, nanodollars FROM waste_entries"):
        assert row.nanodollars >= 0


def test_work_for_jobs_without_an_answer_is_named_by_what_became_of_them(world: Any) -> None:
    batch = world.batch(3)
    worker = world.worker()
    first, second, third = world.claim_all(worker)
    failed = Settlement(second, JobState.FAILED, error={"code": "x", "message": "x"})
    world.tick(worker, work=world.work(first, second, third), settled=[failed])
    assert {row.kind for row in _waste(world)} >= {"pending", "failed"}
    world.cancel(batch)
    kinds = {row.kind for row in _waste(world)}
    assert kinds >= {"cancelled", "failed"}
    assert "pending" not in kinds


def test_a_tenant_sees_no_overhead_and_nothing_of_others(world: Any) -> None:
    mine, other = world.tenant(), world.tenant()
    world.batch(tenant=mine)
    world.batch(tenant=other)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[_settled(job) for job in jobs], idle_fraction=0.5)
    rows = _waste(world, Selection(tenant_id=mine))
    assert {row.kind for row in rows} == {"chosen", "other_rounds"}
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(row.nanodollars for row in rows) < world.billed(worker) / 2
    for wanted in (LATENCY, QUALITY):
        (measured,) = _report(world, wanted, Selection(tenant_id=mine))
        assert measured.numbers["jobs"] == 1


def test_latencies_count_from_submission_to_tokens_and_the_end(world: Any) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.sql("UPDATE jobs SET created_at = created_at - interval '100 seconds'")
    created_ms = round(world.sql("SELECT min(created_at) AS at FROM jobs")[0].at.timestamp() * 1000)
    usage = Usage(completion_tokens=11)
    told = _settled(first, usage=usage, first_token_ms=created_ms + 10_000, first_visible_token_ms=created_ms + 40_000)
    world.tick(worker, work=world.work(first, second), settled=[told, _settled(second)])
    (row,) = _report(world, LATENCY, Selection(("batch",)))
    numbers = row.numbers
    assert row.group == {"batch": batch}
    assert numbers["jobs"] == 2
    assert numbers["first_token_s_p50"] == numbers["first_token_s_p99"] == pytest.approx(10, abs=0.01)
    assert numbers["first_visible_token_s_p95"] == pytest.approx(40, abs=0.01)
    assert 100 <= numbers["queued_s_p50"] <= numbers["end_to_end_s_p50"] < 200
    assert numbers["token_s_p50"] == pytest.approx((numbers["end_to_end_s_p50"] - 10) / 10, rel=0.05)


def test_a_token_never_comes_after_the_end(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    ahead = round((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    world.tick(worker, work=world.work(job), settled=[_settled(job, first_token_ms=ahead)])
    (row,) = world.sql("SELECT first_token_at, first_visible_token_at, settled_at FROM usage JOIN jobs ON id = job_id")
    assert (row.first_token_at, row.first_visible_token_at) == (row.settled_at, None)


def test_quality_counts_verdicts_retries_errors_and_tokens(world: Any) -> None:
    world.batch(6, num_by_judge=3)
    worker = world.worker()
    jobs = world.claim_all(worker)
    usage = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=37, thinking_tokens=20, judge_tokens=7)
    settled = [
        _settled(jobs[0], usage=usage, checked=Verdict.FAILED),
        _settled(jobs[1], usage=usage, verdict=Verdict.FAILED, checked=Verdict.FAILED, tree={"nodes": []}),
        _settled(jobs[2], usage=usage, verdict=Verdict.UNVERIFIED, finish_reason="length", tree={"nodes": []}),
        _settled(jobs[3], usage=usage, verdict=Verdict.FAILED, finish_reason="deadline", tree={"nodes": []}),
        Settlement(jobs[4], JobState.FAILED, error={"code": "x", "message": "x"}, usage=usage),
    ]
    world.tick(worker, work=world.work(*jobs), settled=settled)
    (row,) = _report(world, QUALITY)
    assert (row.numbers["jobs"], row.numbers["passed"], row.numbers["failed"], row.numbers["unverified"]) == (
        5,
        1,
        2,
        1,
    )
    assert (row.numbers["by_judge"], row.numbers["passed_by_judge"], row.numbers["compared"]) == (3, 1, 2)
    assert row.numbers["agreement"] == pytest.approx(1 / 2)
    assert row.numbers["validation_failure_rate"] == pytest.approx(2 / 3)
    for rate in ("retry_rate", "error_rate", "timeout_rate", "truncation_rate"):
        assert row.numbers[rate] == pytest.approx(1 / 5), rate
    assert row.numbers["restart_rate"] == 0
    assert row.numbers["cache_hit_rate"] == pytest.approx(0.4)
    assert [row.numbers[f"{name}_tokens_p95"] for name in ("prompt", "thinking", "answer")] == [10, 20, 10]


def test_reports_are_grouped_by_key_day_hour_and_metadata(world: Any) -> None:
    batch, other = world.batch(2), world.batch(1)
    world.sql('UPDATE batches SET metadata = \'{"team": "red", "env": "ci"}\' WHERE id = :id', id=batch)
    world.sql(
        'UPDATE jobs SET request = jsonb_set(request, \'{kept}\', \'{"metadata": {"team": "blue"}}\') '
        "WHERE batch_id = :id AND line = 2",
        id=batch,
    )
    tenant = world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=other)[0].tenant_id
    world.sql(
        "INSERT INTO api_keys (id, tenant_id, name, sha256, hint) VALUES ('key_1', :tenant, 'a', '\\x00', 'pk')",
        tenant=tenant,
    )
    world.sql("UPDATE batches SET key_id = 'key_1' WHERE id = :id", id=other)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, work=world.work(*jobs), settled=[_settled(job) for job in jobs])
    today = f"{world.sql('SELECT settled_at FROM jobs LIMIT 1')[0].settled_at.astimezone(UTC):%Y-%m-%d}"
    with world.engine.begin() as connection:
        rows = cost_report(connection, Selection(("metadata.team", "metadata.env", "key", "day")))
        hours = cost_report(connection, Selection(("hour",)))
    assert [(tuple(row.group.values()), row.num_passed) for row in rows] == [
        (("blue", "ci", None, today), 1),
        (("red", "ci", None, today), 1),
        ((None, None, "key_1", today), 1),
    ]
    assert sum(row.direct_nanodollars for row in rows) == world.kinds(worker)["work"]
    assert sum(row.num_passed for row in hours) == 3
    with pytest.raises(InvalidInput, match="'squad'") as raised:
        _report(world, QUALITY, Selection(("metadata.squad",)))
    assert raised.value.param == "by"
    assert len(_waste(world, Selection(("metadata.team",)))) > 2
    assert [row.group["metadata.team"] for row in _report(world, LATENCY, Selection(("metadata.team",)))] == [
        "blue",
        "red",
        None,
    ]


def test_since_and_until_choose_by_when_money_was_booked_and_jobs_were_settled(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    world.tick(worker, work=world.work(job))
    middle = world.sql("SELECT clock_timestamp() AS now")[0].now
    world.tick(worker, work=world.work(job), settled=[_settled(job)])
    with world.engine.begin() as connection:
        (before,) = cost_report(connection, Selection(until=middle))
        (after,) = cost_report(connection, Selection(since=middle))
        (whole,) = cost_report(connection, Selection())
    assert (before.num_passed, after.num_passed) == (0, 1)
    assert before.direct_nanodollars + after.direct_nanodollars == whole.direct_nanodollars
    assert min(before.direct_nanodollars, after.direct_nanodollars) > 0
    parts = [_waste(world, selection) for selection in (Selection(until=middle), Selection(since=middle))]
    assert sum(row.nanodollars for rows in parts for row in rows) == world.billed(worker)
    with pytest.raises(InvalidInput, match="since"):
        replace(Selection(until=middle), since=middle)
