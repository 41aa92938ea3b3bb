"""Pruning of batches whose time is over: what goes, what stays, and that nobody waits."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import text

from ponder.domain.state import JobState
from ponder.errors import Gone
from ponder.jobs.batch.retry import retry
from ponder.jobs.retention import prune as module
from ponder.jobs.retention.discard import Discarded, discard, discardable
from ponder.jobs.retention.prune import prune
from ponder.jobs.tick import Settlement, tick
from ponder.ledger.cost_report import cost_report
from ponder.ledger.reporting import QUALITY, Selection, report, waste_report

DAY_S = 86_400


def _ended(world: Any, *, num_jobs: int = 3, keep_s: int | None = DAY_S, ended_s_ago: float = 2 * DAY_S) -> str:
    """Makes a batch that completed a while ago, with a result, a tree and a file of each kind."""
    batch = world.batch(num_jobs, level="1", strategy="best_of_n")
    worker = world.worker()
    jobs = [job for job in world.claim_all(worker) if job in world.jobs(batch)]
    world.tick(worker, work=world.work(*jobs), idle_fraction=0.25, settled=[world.passed(job) for job in jobs])
    world.finish()
    world.tally()
    world.sql(
        """
        UPDATE batches SET output_expires_after_s = CAST(:keep_s AS integer),
                           completed_at = completed_at - CAST(:ago AS float8) * interval '1 second'
        WHERE id = :id
        """,
        id=batch,
        keep_s=keep_s,
        ago=ended_s_ago,
    )
    world.sql(
        "INSERT INTO file_chunks SELECT input_file_id, 0, 'prompts' FROM batches WHERE id = :id ON CONFLICT DO NOTHING",
        id=batch,
    )
    world.sql("INSERT INTO rejected_lines VALUES (:id, 99, 'x', 'invalid_value', NULL, 'quotes the line')", id=batch)
    return batch


def _prune(world: Any) -> None:
    while prune(world.engine, for_s=1.0):
        pass


def _left(world: Any, batch: str) -> dict[str, int]:
    """Counts what is left of what users sent and got."""
    (row,) = world.sql(
        """
        SELECT (SELECT count(*) FROM jobs WHERE batch_id = :id AND request ? 'messages') AS prompts,
               (SELECT count(*) FROM results JOIN jobs ON jobs.id = job_id
                WHERE batch_id = :id AND (answer IS NOT NULL OR choices IS NOT NULL)) AS answers,
               (SELECT count(*) FROM search_trees JOIN jobs ON jobs.id = job_id WHERE batch_id = :id) AS trees,
               (SELECT count(*) FROM tree_deltas WHERE batch_id = :id) AS deltas,
               (SELECT count(*) FROM rejected_lines WHERE batch_id = :id) AS refusals,
               (SELECT count(*) FROM files WHERE batch_id = :id AND deleted_at IS NULL) AS files,
               (SELECT count(*) FROM file_chunks JOIN batches ON input_file_id = file_id WHERE id = :id) AS chunks
        """,
        id=batch,
    )
    return dict(row._mapping)


NOTHING = {"prompts": 0, "answers": 0, "trees": 0, "deltas": 0, "refusals": 0, "files": 0, "chunks": 0}


def test_what_a_batch_sent_and_got_goes_after_its_time_and_other_batches_stay(world: Any) -> None:
    due, fresh, kept = _ended(world), _ended(world, ended_s_ago=0), _ended(world, keep_s=None)
    before = {batch: _left(world, batch) for batch in (fresh, kept)}
    assert before[kept]["prompts"] == before[kept]["trees"] == 3
    _prune(world)
    assert _left(world, due) == NOTHING
    assert {batch: _left(world, batch) for batch in (fresh, kept)} == before


def test_reports_add_up_to_the_nano_dollar_after_pruning(world: Any) -> None:
    batch = _ended(world, num_jobs=4)
    world.sql(
        'UPDATE jobs SET request = jsonb_set(request, \'{kept}\', \'{"metadata": {"team": "red"}, "user": "u"}\')'
    )
    selections = [
        Selection(by) for by in (("strategy", "level", "batch"), ("metadata.team", "model"), ("market", "machine"))
    ]

    def reports() -> list[Any]:
        with world.engine.begin() as connection:
            return [
                made
                for selection in selections
                for made in (
                    cost_report(connection, selection),
                    waste_report(connection, selection),
                    report(connection, QUALITY, selection),
                )
            ]

    before, bills = reports(), world.sql("SELECT * FROM ledger_entries ORDER BY id")
    totals = world.totals(batch)
    _prune(world)
    assert _left(world, batch) == NOTHING
    assert reports() == before
    assert world.sql("SELECT * FROM ledger_entries ORDER BY id") == bills
    assert world.totals(batch) == totals
    assert [row.request for row in world.sql("SELECT DISTINCT request FROM jobs")] == [
        {"kept": {"metadata": {"team": "red"}}}
    ]


@pytest.mark.parametrize("state", ["validating", "in_progress", "cancelling"])
def test_nothing_of_a_batch_that_has_not_ended_is_deleted_however_old_it_is(world: Any, state: str) -> None:
    batch = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.tick(worker, deltas={second: [{"nodes": []}]}, settled=[world.passed(first)])
    world.sql(
        "UPDATE batches SET state = :state, output_expires_after_s = 1, created_at = now() - interval '1 year'",
        state=state,
    )
    world.sql("INSERT INTO file_chunks SELECT input_file_id, 0, 'prompts' FROM batches WHERE id = :id", id=batch)
    before = _left(world, batch)
    with world.engine.begin() as connection:
        discard(connection, None, older_than_s=0)
    _prune(world)
    assert _left(world, batch) == before
    assert before["prompts"] == 2


def test_a_batch_that_a_worker_still_holds_jobs_of_waits(world: Any) -> None:
    batch = world.batch(2, expires_in_s=0)
    world.sql("UPDATE batches SET output_expires_after_s = 1, expires_at = now() + interval '1 day'")
    worker = world.worker()
    world.claim_all(worker)
    world.sql("UPDATE batches SET expires_at = now()")
    world.finish()
    world.sql("UPDATE batches SET expired_at = now() - interval '1 day'")
    assert world.state(batch) == "expired"
    _prune(world)
    assert _left(world, batch)["prompts"] == 2
    world.tick(worker)
    _prune(world)
    assert _left(world, batch) == NOTHING


def test_an_input_file_stays_while_another_batch_needs_it(world: Any) -> None:
    first, second = _ended(world), _ended(world, ended_s_ago=0)
    world.sql(
        "UPDATE batches SET input_file_id = (SELECT input_file_id FROM batches WHERE id = :id)",
        id=first,
    )
    _prune(world)
    assert _left(world, first) == NOTHING | {"chunks": 1}
    world.sql("UPDATE batches SET completed_at = completed_at - interval '2 days' WHERE id = :id", id=second)
    _prune(world)
    assert _left(world, second) == NOTHING


def test_an_input_file_that_no_batch_uses_goes_after_its_tenants_time(world: Any) -> None:
    tenant = world.tenant()
    for name, age in (("file-01", "3 days"), ("file-02", "1 hour")):
        world.sql(
            f"""
            INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes, created_at)
            VALUES (:name, :tenant, 'x', 'batch', 'input', 1, now() - interval '{age}')
            """,
            name=name,
            tenant=tenant,
        )
        world.sql("INSERT INTO file_chunks SELECT :name, n, 'x' FROM generate_series(0, 40) AS n", name=name)
    _prune(world)
    world.sql("UPDATE tenants SET output_expires_after_s = 86400 WHERE id = :id", id=tenant)
    _prune(world)
    rows = world.sql("SELECT id, deleted_at IS NULL AS is_there, (SELECT count(*) FROM file_chunks WHERE file_id = id)"
                     " AS chunks FROM files ORDER BY id")  # fmt: skip
    assert [tuple(row) for row in rows] == [("file-01", False, 0), ("file-02", True, 41)]


def test_lines_are_deleted_in_pieces_and_batches_take_turns(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _ended(world), _ended(world)
    monkeypatch.setattr(module, "_LINES", 2)
    monkeypatch.setattr(module, "_PRUNE", text(str(module._PRUNE).replace("LIMIT 500", "LIMIT 2")))
    assert prune(world.engine, for_s=-1), "it only discards"
    assert [row.pruned_line for row in world.sql("SELECT pruned_line FROM batches")] == [0, 0]
    with world.engine.begin() as connection:
        assert module._prune_lines(connection)
        assert module._prune_lines(connection)
    assert [_left(world, batch)["prompts"] for batch in (first, second)] == [1, 1]
    _prune(world)
    assert _left(world, first) == _left(world, second) == NOTHING


def test_pruning_and_ticks_wait_for_each_other_for_a_moment_only(world: Any) -> None:
    batch = _ended(world)
    running = world.batch(2)
    worker = world.worker()
    first, second = world.claim_all(worker)
    with world.engine.begin() as frozen:
        discard(frozen)
        module._prune_lines(frozen)
        started_at = time.monotonic()
        world.tick(worker, settled=[world.passed(first)], work=world.work(first))
        world.dispatch()
        assert time.monotonic() - started_at < 1
    with world.engine.begin() as frozen:
        tick(frozen, world.report(worker, settled=[world.passed(second)], work=world.work(second)))
        started_at = time.monotonic()
        _prune(world)
        assert time.monotonic() - started_at < 1
    assert _left(world, batch) == NOTHING
    assert _left(world, running)["prompts"] == 2


def test_a_dry_run_says_what_goes_and_deletes_nothing(world: Any) -> None:
    due, old = _ended(world), _ended(world, keep_s=None)
    other = world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=old)[0].tenant_id
    with world.engine.begin() as connection:
        mine = discardable(connection, None, None)
        everything = discardable(connection, None, DAY_S)
        others = discardable(connection, other, DAY_S)
        nothing = discardable(connection, other, 3 * DAY_S)
    assert (mine.batches, mine.lines, mine.files) == (1, 3, 2)
    assert (everything.batches, everything.lines, everything.files) == (2, 6, 4)
    assert everything.bytes > others.bytes > 500
    assert nothing == Discarded(0, 0, 0, 0)
    with world.engine.begin() as connection:
        discard(connection, other, DAY_S)
    _prune(world)
    assert _left(world, old) == _left(world, due) == NOTHING


def test_a_failed_job_keeps_the_code_of_its_error_and_no_text(world: Any) -> None:
    world.batch()
    worker = world.worker()
    (job,) = world.claim_all(worker)
    error = {"code": "invalid_request", "message": "quotes the prompt"}
    world.tick(worker, settled=[Settlement(job, JobState.FAILED, error=error)])
    world.finish()
    with world.engine.begin() as connection:
        discard(connection, None, older_than_s=0)
    _prune(world)
    assert [row.error for row in world.sql("SELECT error FROM results")] == [
        {"code": "invalid_request", "message": "deleted with the results"}
    ]


def test_a_pruned_batch_cannot_be_retried(world: Any) -> None:
    batch = _ended(world)
    tenant = world.sql("SELECT tenant_id FROM batches WHERE id = :id", id=batch)[0].tenant_id
    _prune(world)
    with world.engine.begin() as connection, pytest.raises(Gone, match="submit its file again"):
        retry(connection, tenant, batch, new_batch_id="batch_ff")
