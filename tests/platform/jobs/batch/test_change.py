"""A batch's changed priority and completion window decide what is dispatched next."""

from __future__ import annotations

from typing import Any

from ponder.domain.batch.submission import Change
from ponder.jobs.batch.change import change
from ponder.queue.celery_app import queue_name


def _change(world: Any, tenant: str, batch: str, **body: Any) -> None:
    with world.engine.begin() as connection:
        change(connection, tenant, batch, Change.model_validate(body))


def _batches(world: Any) -> list[tuple[str, str]]:
    """Returns batch and queue of the shards that are dispatched now, in their order."""
    messages = world.messages()
    shards = {row.id: row.batch_id for row in world.sql("SELECT id, batch_id FROM shards")}
    return [(shards[message.shard_id], message.queue) for message in messages]


def _queue(lane: str) -> str:
    return queue_name("demo", "f1", lane)


def test_a_batch_that_became_interactive_goes_first_and_one_that_no_longer_is_waits(world: Any) -> None:
    tenant = world.tenant()
    first, second = world.batch(1, tenant=tenant), world.batch(1, tenant=tenant)
    _change(world, tenant, second, ponder={"priority": "interactive"})
    assert _batches(world) == [(second, _queue("interactive")), (first, _queue("batch"))]

    third, fourth = world.batch(1, tenant=tenant, lane="interactive"), world.batch(1, tenant=tenant, lane="interactive")
    _change(world, tenant, third, ponder={"priority": "batch"})
    world.worker()
    assert _batches(world) == [(fourth, _queue("interactive")), (third, _queue("batch"))]


def test_shards_that_were_handed_back_take_the_new_priority_too(world: Any) -> None:
    tenant = world.tenant()
    batch, other = world.batch(1, tenant=tenant), world.batch(1, tenant=tenant)
    worker = world.worker()
    world.claim_all(worker)
    world.release(worker)
    _change(world, tenant, other, ponder={"priority": "interactive"})
    assert _batches(world) == [(other, _queue("interactive")), (batch, _queue("batch"))]


def test_the_batch_that_expires_first_goes_first_also_after_its_window_was_changed(world: Any) -> None:
    tenant = world.tenant()
    early, late, urgent = (world.batch(1, tenant=tenant) for _ in range(3))
    _change(world, tenant, early, completion_window="3d")
    _change(world, tenant, urgent, completion_window="2h")
    assert [batch for batch, _ in _batches(world)][:2] == [urgent, late]


def test_a_longer_window_keeps_a_batch_from_expiring_and_it_is_dispatched(world: Any) -> None:
    tenant = world.tenant()
    batch = world.batch(1, tenant=tenant, expires_in_s=0)
    assert _batches(world) == []
    _change(world, tenant, batch, completion_window="3h")
    world.finish()
    assert [found for found, _ in _batches(world)] == [batch]
