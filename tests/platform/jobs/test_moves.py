"""The table of legal moves says what the SQL does: no more, and no less."""

from __future__ import annotations

from typing import Any

import pytest
from moves import LEGAL, moves, watch_moves
from sqlalchemy import Engine

from ponder.domain.batch.submission import Change
from ponder.domain.state import IncarnationState, JobState
from ponder.jobs.batch.change import change
from ponder.jobs.dispatching.sweep import sweep
from ponder.jobs.tick import Settlement
from ponder.jobs.validation.validate import validate


@pytest.fixture(autouse=True)
def watched(engine: Engine) -> None:
    watch_moves(engine)


def _expire(world: Any, batch: str) -> None:
    world.sql("UPDATE batches SET expires_at = clock_timestamp() WHERE id = :id", id=batch)
    world.finish()


def _every_way_of_a_batch(desk: Any, world: Any) -> None:
    bad, good, cancelled, expired = (desk.submit(desk.file(content)) for content in (b"no JSON", b"{}", b"{}", b"{}"))
    validate(desk.engine, bad)
    validate(desk.engine, good)
    world.cancel(cancelled)
    _expire(world, expired)
    world.cancel(world.batch())
    _expire(world, world.batch())
    world.finish()


def _every_way_of_jobs_and_shards(world: Any) -> None:
    world.batch(2)
    first, second = world.claim_all(worker := world.worker())
    failed = Settlement(second, JobState.FAILED, error={"code": "c", "message": "m"})
    world.tick(worker, settled=[world.passed(first), failed])
    world.finish()
    queued = world.batch()
    world.dispatch()
    world.cancel(queued)
    world.finish()


def _every_way_of_a_worker(engine: Engine, world: Any) -> None:
    world.loading_worker()
    told_while_loading, ready = world.loading_worker(), world.worker()
    world.tick(told_while_loading, state=IncarnationState.DRAINING)
    world.tick(ready, state=IncarnationState.DRAINING)
    world.release(ready)
    world.release(world.worker())
    world.sql("UPDATE incarnations SET lease_until = clock_timestamp() WHERE state <> 'ended'")
    sweep(engine, shard_tokens=1_000)


def _every_way_of_a_pilot(desk: Any, world: Any) -> None:
    lines = [desk.line(name) for name in "abc"]
    worker = world.worker(fingerprint="f0")
    for confirms in (False, True, True):
        batch = desk.batch(*lines, pilot={"jobs": 1, "confirm": confirms})
        world.tick(worker, settled=[world.passed(job) for job in world.claim_all(worker)])
        world.conclude()
    _confirm(world, batch)
    batch = desk.batch(*lines, pilot={"jobs": 1})
    for batch in [row.batch_id for row in world.sql("SELECT batch_id FROM pilots WHERE state <> 'passed'")]:
        world.cancel(batch)
    world.conclude()


def _confirm(world: Any, batch: str) -> None:
    with world.engine.begin() as connection:
        change(connection, "tenant_00", batch, Change.model_validate({"ponder": {"pilot": {"confirmed": True}}}))


def test_every_legal_move_is_made_and_no_other(engine: Engine, desk: Any, world: Any) -> None:
    _every_way_of_a_batch(desk, world)
    _every_way_of_jobs_and_shards(world)
    _every_way_of_a_pilot(desk, world)
    _every_way_of_a_worker(engine, world)
    assert moves(engine) == LEGAL
