from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from ponder.errors import Conflict, NotFound
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.dispatching.finish import finish, follow


def cancelled(desk: Any, batch: str, tenant: str = "tenant_00") -> None:
    with desk.engine.begin() as connection:
        cancel(connection, tenant, batch)


def finished(desk: Any) -> None:
    with desk.engine.begin() as connection:
        finish(connection)
        follow(connection)


def test_pending_jobs_are_cancelled_and_settled_ones_stay(desk: Any) -> None:
    batch = desk.batch(desk.line("a"), desk.line("b"))
    desk.sql("UPDATE jobs SET state = 'completed', verdict = 'passed' WHERE custom_id = 'a'")
    cancelled(desk, batch)
    assert (desk.row(batch).state, desk.row(batch).cancelling_at is None) == ("cancelling", False)
    finished(desk)
    assert [job.state for job in desk.jobs(batch)] == ["completed", "cancelled"]
    assert desk.row(batch).state == "cancelled"


def test_queued_shards_are_finished_and_give_nothing_before(desk: Any, world: Any) -> None:
    batch = desk.batch(desk.line("a"))
    (shard,) = world.dispatch()
    cancelled(desk, batch)
    assert world.claim(shard, world.worker(fingerprint="f0")) is None
    finished(desk)
    assert [row.state for row in desk.sql("SELECT state FROM shards")] == ["finished"]


def test_cancelling_takes_as_long_for_many_jobs_as_for_one(world: Any) -> None:
    batch = world.batch(20_000)
    with counting(world.engine) as rows:
        world.cancel(batch)
    assert sum(rows) <= 3, "rows that were read or written"
    world.finish()
    assert world.state(batch) == "cancelled"


@contextmanager
def counting(engine: Engine) -> Iterator[list[int]]:
    """Collects how many rows each statement has found or changed."""
    rows: list[int] = []

    def count(connection: Any, cursor: Any, *_: Any) -> None:
        rows.append(max(0, cursor.rowcount))

    event.listen(engine, "after_cursor_execute", count)
    yield rows
    event.remove(engine, "after_cursor_execute", count)


def test_cancelling_again_changes_nothing(desk: Any) -> None:
    batch = desk.batch(desk.line("a"))
    cancelled(desk, batch)
    before = desk.row(batch)
    cancelled(desk, batch)
    assert desk.row(batch) == before


@pytest.mark.parametrize("state", ["completed", "failed", "expired"])
def test_an_ended_batch_cannot_be_cancelled(desk: Any, state: str) -> None:
    batch = desk.batch(desk.line("a"))
    desk.sql("UPDATE batches SET state = :state", state=state)
    with pytest.raises(Conflict, match=state):
        cancelled(desk, batch)


def test_another_tenants_batch_does_not_exist(desk: Any) -> None:
    batch = desk.batch(desk.line("a"))
    with pytest.raises(NotFound):
        cancelled(desk, batch, "tenant_01")
    assert desk.row(batch).state == "in_progress"
