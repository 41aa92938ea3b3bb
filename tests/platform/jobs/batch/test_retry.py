from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ponder.errors import Conflict, NotFound
from ponder.jobs.batch.retry import retry


def retried(desk: Any, batch: str, *, tenant: str = "tenant_00", key: str | None = None) -> str:
    with desk.engine.begin() as connection:
        return retry(connection, tenant, batch, new_batch_id=f"batch_{next(desk.numbers):x}", idempotency_key=key)


@pytest.fixture
def ended(desk: Any) -> str:
    """A batch with a completed, a failed, an expired and a cancelled job, and a rejected line."""
    batch: str = desk.batch(*(desk.line(name) for name in ("a", "b", "c", "d")), b"?", priority="interactive")
    for custom_id, state in (("a", "completed"), ("b", "failed"), ("c", "expired"), ("d", "cancelled")):
        desk.sql("UPDATE jobs SET state = :state WHERE custom_id = :custom_id", state=state, custom_id=custom_id)
    desk.sql("UPDATE batches SET state = 'completed'")
    return batch


def test_failed_and_expired_jobs_are_tried_again(desk: Any, ended: str) -> None:
    desk.sql("UPDATE jobs SET oracle = custom_id = 'b', judged = custom_id = 'c'")
    again = retried(desk, ended)
    row = desk.row(again)
    assert (row.state, row.retry_of, row.num_lines, row.lane) == ("in_progress", ended, 2, "interactive")
    assert row.expires_at > row.created_at
    assert [(job.custom_id, job.line, job.state, job.oracle, job.judged) for job in desk.jobs(again)] == [
        ("b", 2, "pending", True, False),
        ("c", 3, "pending", False, True),
    ]
    assert [job.request for job in desk.jobs(again)] == [job.request for job in desk.jobs(ended)[1:3]]
    [portion] = desk.sql("SELECT * FROM portions WHERE batch_id = :id", id=again)
    assert portion.last_line == 3


def test_they_are_pinned_to_the_weights_served_now(desk: Any, ended: str) -> None:
    desk.sql("UPDATE models SET fingerprint = 'newer' WHERE name = 'demo'")
    assert {job.fingerprint for job in desk.jobs(retried(desk, ended))} == {"newer"}


def test_a_network_retry_pays_once(desk: Any, ended: str) -> None:
    first = retried(desk, ended, key="k")
    assert retried(desk, ended, key="k") == first
    with pytest.raises(Conflict):
        desk.submit(desk.file(b"{}"), key="k")


def test_many_network_retries_at_once_make_one_batch(desk: Any, ended: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: retried(desk, ended, key="k"), range(24)))
    assert len(made) == 1
    assert len(desk.sql("SELECT id FROM batches WHERE retry_of = :id", id=ended)) == 1


def test_a_batch_that_goes_on_or_has_no_failures_cannot_be_retried(desk: Any) -> None:
    batch = desk.batch(desk.line("a"))
    with pytest.raises(Conflict, match="in_progress"):
        retried(desk, batch)
    desk.sql("UPDATE batches SET state = 'completed'")
    with pytest.raises(Conflict, match="nothing to retry"):
        retried(desk, batch)
    assert len(desk.sql("SELECT id FROM batches")) == 1


def test_another_tenants_batch_does_not_exist(desk: Any, ended: str) -> None:
    with pytest.raises(NotFound):
        retried(desk, ended, tenant="tenant_01")


def test_the_new_batch_knows_what_its_smallest_job_may_generate(desk: Any) -> None:
    batch = desk.batch(desk.line("a", max_tokens=30), desk.line("b"))
    desk.sql("UPDATE batches SET state = 'expired', expired_at = now()")
    again = retried(desk, batch)
    (portion,) = desk.sql("SELECT least_tokens FROM portions WHERE batch_id = :id", id=again)
    assert portion.least_tokens == 30
