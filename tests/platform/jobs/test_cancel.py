from __future__ import annotations

from typing import Any

import pytest

from ponder.errors import Conflict, NotFound
from ponder.jobs.cancel import cancel
from ponder.jobs.dispatch import dispatch


def cancelled(desk: Any, batch: str, tenant: str = "tenant_00") -> None:
    with desk.engine.begin() as connection:
        cancel(connection, tenant, batch)


def test_pending_jobs_are_cancelled_and_settled_ones_stay(desk: Any) -> None:
    batch = desk.batch(desk.line("a"), desk.line("b"))
    desk.sql("UPDATE jobs SET state = 'completed', verdict = 'passed' WHERE custom_id = 'a'")
    cancelled(desk, batch)
    assert [job.state for job in desk.jobs(batch)] == ["completed", "cancelled"]
    assert (desk.row(batch).state, desk.row(batch).cancelling_at is None) == ("cancelling", False)


def test_queued_shards_are_finished(desk: Any) -> None:
    batch = desk.batch(desk.line("a"))
    with desk.engine.begin() as connection:
        dispatch(connection, shard_tokens=200_000)
    cancelled(desk, batch)
    assert [row.state for row in desk.sql("SELECT state FROM shards")] == ["finished"]


def test_cancelling_again_changes_nothing(desk: Any) -> None:
    batch = desk.batch(desk.line("a"))
    cancelled(desk, batch)
    before = desk.row(batch)
    cancelled(desk, batch)
    assert desk.row(batch) == before


@pytest.mark.parametrize("state", ["completed", "failed", "expired", "finalizing"])
def test_what_has_ended_cannot_be_cancelled(desk: Any, state: str) -> None:
    batch = desk.batch(desk.line("a"))
    desk.sql("UPDATE batches SET state = :state", state=state)
    with pytest.raises(Conflict, match=state):
        cancelled(desk, batch)


def test_another_tenants_batch_does_not_exist(desk: Any) -> None:
    batch = desk.batch(desk.line("a"))
    with pytest.raises(NotFound):
        cancelled(desk, batch, "tenant_01")
    assert desk.row(batch).state == "in_progress"
