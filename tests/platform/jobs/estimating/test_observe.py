"""What completed jobs took, learnt by cell."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from ponder.domain.batch.cell import Cell
from ponder.domain.forecast.lengths import Group
from ponder.domain.state import JobState
from ponder.jobs.estimating.observe import MOST_CELLS, fold_observations, observe, observed, observed_in
from ponder.jobs.tick import Settlement, Usage, Work

_WIDE = 1e9


def _settled(world: Any, job_id: int, tokens: int, **changes: Any) -> Any:
    usage = Usage(prompt_tokens=10, completion_tokens=tokens, reward_tokens=tokens)
    return replace(world.passed(job_id), usage=usage, finish_reason="stop", **changes)


def _tenant(world: Any, batch: str) -> str:
    return str(world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=batch)[0].tenant_id)


def _run(world: Any, tokens: list[int], **batch: Any) -> str:
    """Runs a batch whose jobs generate so many tokens. Returns its tenant."""
    batch_id, worker = world.batch(len(tokens), **batch), world.worker()
    jobs = world.claim_all(worker)
    for job, number in zip(jobs, tokens, strict=True):
        work = [Work(job, 1.0)]
        world.tick(worker, settled=[_settled(world, job, number)], work=work)
    return _tenant(world, batch_id)


def _observed(world: Any, tenant: str) -> Any:
    with world.engine.connect() as connection:
        return observed(connection, tenant, ["f1"])


def test_a_settled_job_is_counted_in_the_cell_of_its_model_strategy_and_level(world: Any) -> None:
    tenant = _run(world, [100, 120], level="hard")
    found = _observed(world, tenant)
    assert found.lengths.num_settled("f1", "direct", "hard") == 2
    assert found.lengths.num_settled("f1", "direct", "") == 0
    assert _observed(world, world.tenant()).lengths.num_settled("f1") == 0, "nobody learns from the jobs of others"


def test_folding_changes_nothing_and_leaves_one_row_for_each_cell(world: Any) -> None:
    tenant = world.tenant()
    for level in ("1", "2"):
        _run(world, [50, 60, 70], tenant=tenant, level=level)
    groups = [Group(("f1", "direct", level), 10, 1, _WIDE) for level in ("1", "2", "3")]
    before = _observed(world, tenant).lengths.total(groups)
    for _ in range(2):
        with world.engine.begin() as connection:
            fold_observations(connection)
        assert _observed(world, tenant).lengths.total(groups) == before
    assert world.sql("SELECT 1 FROM observations") == []
    assert len(world.sql("SELECT 1 FROM experience")) == 2


def test_a_report_sent_twice_is_observed_once(world: Any) -> None:
    batch, worker = world.batch(), world.worker()
    (job,) = world.claim_all(worker)
    report = world.report(worker, settled=[_settled(world, job, 100)])
    world.send(report)
    world.send(report)
    assert _observed(world, _tenant(world, batch)).lengths.num_settled("f1") == 1


def test_a_failed_job_tells_nothing_about_lengths(world: Any) -> None:
    batch, worker = world.batch(), world.worker()
    (job,) = world.claim_all(worker)
    error = {"code": "worker_lost", "message": "…"}
    world.tick(worker, settled=[Settlement(job, JobState.FAILED, error=error, usage=Usage(completion_tokens=5))])
    assert _observed(world, _tenant(world, batch)).lengths.num_settled("f1") == 0


def test_a_job_that_was_cut_off_counts_as_one_that_would_have_generated_more(world: Any) -> None:
    batch, worker = world.batch(2), world.worker()
    whole, cut = world.claim_all(worker)
    reports = [_settled(world, whole, 100), replace(_settled(world, cut, 100), finish_reason="length")]
    world.tick(worker, settled=reports)
    found = _observed(world, _tenant(world, batch)).lengths.place(("f1", "direct", "")).histogram
    assert (found.num_seen, found.num_jobs) == (1, 2)


def test_the_engine_time_of_a_job_is_what_it_was_charged_at_the_machine_s_price(world: Any) -> None:
    tenant = _run(world, [100] * 5)
    (row,) = world.sql(
        """
        SELECT sum(nanodollars * 3600.0 / nanodollars_per_hour) AS seconds
        FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id WHERE job_id IS NOT NULL
        """
    )
    found = _observed(world, tenant)
    assert found.machines("f1") == ["h200"]
    estimate = found.seconds(("f1", "direct", ""), "h200")
    assert estimate is not None
    assert abs(estimate.value * 5 * 110 / float(row.seconds) - 1) < 1e-6


def test_a_tick_does_not_wait_for_what_others_write(world: Any) -> None:
    tenant = _run(world, [100])
    with world.engine.begin() as connection:
        fold_observations(connection)
    world.batch(1, tenant=tenant)
    worker = world.worker()
    (job,) = world.claim_all(worker)
    with world.engine.begin() as frozen:
        frozen.execute(text("SELECT 1 FROM experience FOR UPDATE"))
        fold_observations(frozen)
        began = time.monotonic()
        world.tick(worker, settled=[_settled(world, job, 100)])
        assert time.monotonic() - began < 5
    assert _observed(world, tenant).lengths.num_settled("f1") == 2


def test_folding_at_the_same_time_loses_nothing(world: Any) -> None:
    batch, worker = world.batch(40), world.worker()
    jobs = world.claim_all(worker)
    stop = threading.Event()

    def fold() -> None:
        while not stop.is_set():
            with world.engine.begin() as connection:
                fold_observations(connection)

    threads = [threading.Thread(target=fold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(10):
        world.tick(worker, settled=[_settled(world, job, 100) for job in jobs[start::10]])
    stop.set()
    for thread in threads:
        thread.join(60)
    assert _observed(world, _tenant(world, batch)).lengths.num_settled("f1") == 40


def test_a_tenant_that_invents_levels_gets_a_bounded_number_of_rows(world: Any) -> None:
    tenant, most = world.tenant(), MOST_CELLS + 50
    world.sql(
        """
        INSERT INTO observations (tenant_id, fingerprint, strategy, level, sums)
        SELECT :tenant, 'f1', 'direct', CAST(number AS text), '{"len.50": 1}' FROM generate_series(1, :most) AS number
        """,
        tenant=tenant,
        most=most,
    )
    with world.engine.begin() as connection:
        fold_observations(connection)
    assert len(world.sql("SELECT 1 FROM experience")) == MOST_CELLS + 1
    assert _observed(world, tenant).lengths.num_settled("f1") == most


def test_nothing_is_observed_without_jobs(world: Any) -> None:
    with world.engine.begin() as connection:
        observe(connection, [])
    assert world.sql("SELECT 1 FROM observations") == []


def test_the_canonical_strategy_has_what_decides_the_length_and_no_free_text() -> None:
    strategy = {"name": "budget_forcing", "num_waits": 2, "wait": "Wait", "answer": "So:"}
    assert Cell.of({"strategy": strategy, "sampling": {}}, 100) == Cell("budget_forcing num_waits=2", 1, 100)
    request = {"strategy": {"name": "direct"}, "sampling": {"max_tokens": 50}, "n": 4, "budget": {"tokens": 100}}
    assert Cell.of(request, 1_000) == Cell("direct choices=4", 4, 25)
    thinking = {"strategy": {"name": "direct"}, "sampling": {}, "effort": {"thinking_tokens": 1_025}}
    assert Cell.of(thinking, 9_000).strategy == "direct thinking=2048"


def test_a_request_without_a_strategy_settles_as_a_direct_one(world: Any) -> None:
    batch, worker = world.batch(), world.worker()
    world.sql("UPDATE jobs SET request = request - 'strategy' - 'sampling'")
    (job,) = world.claim_all(worker)
    world.tick(worker, settled=[_settled(world, job, 100)])
    assert _observed(world, _tenant(world, batch)).lengths.num_settled("f1", "direct", "") == 1


def test_for_a_batch_its_own_cells_are_read_and_only_a_few_of_a_tenant_with_many(world: Any) -> None:
    batch, worker = world.batch(2, level="own"), world.worker()
    world.tick(worker, settled=[_settled(world, job, 100) for job in world.claim_all(worker)])
    tenant = _tenant(world, batch)
    world.sql(
        """
        INSERT INTO experience (tenant_id, fingerprint, strategy, level, sums)
        SELECT :tenant, 'f1', 'direct', 'a' || number, '{"len.50": 2, "tokens": 152}'
        FROM generate_series(1, 500) AS number
        """,
        tenant=tenant,
    )
    for is_folded in (False, True):
        if is_folded:
            with world.engine.begin() as connection:
                fold_observations(connection)
        with world.engine.connect() as connection:
            found = observed_in(connection, tenant, batch, [("f1", "direct", "own"), ("f1", "direct", "none")])
        assert found.num_own == 2
        assert 20 <= sum(found.lengths.num_settled("f1", "direct", f"a{number}") > 0 for number in range(501)) <= 32
