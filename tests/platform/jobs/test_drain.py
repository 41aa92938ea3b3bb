from __future__ import annotations

from typing import Any

from ponder.domain.state import IncarnationState
from ponder.jobs.drain import ask_to_drain


def _ask(world: Any, incarnation_id: str, within_s: float = 60) -> bool:
    with world.engine.begin() as connection:
        return ask_to_drain(connection, incarnation_id, within_s=within_s)


def test_a_worker_that_was_asked_to_leave_claims_nothing_more_and_its_next_tick_says_until_when(world: Any) -> None:
    world.batch()
    worker, other = world.worker(), world.worker()
    (shard,) = world.dispatch()
    assert world.tick(worker).drain_until is None

    assert _ask(world, worker)

    assert world.claim(shard, worker) is None
    assert world.claim(shard, other) is not None
    report = world.report(worker)
    reply = world.tick(worker)
    assert 50 < (reply.drain_until - reply.now).total_seconds() < 60
    assert world.send(report).drain_until == reply.drain_until, "a repeated tick gets the same reply"


def test_a_worker_that_was_asked_to_leave_is_no_capacity(world: Any) -> None:
    world.batch(20, tokens=1_000)
    leaving, _staying = world.worker(room_tokens=5_000), world.worker(room_tokens=1_000)
    _ask(world, leaving)

    assert len(world.dispatch()) == 2


def test_asking_again_can_only_shorten_the_time(world: Any) -> None:
    worker = world.worker()
    _ask(world, worker)
    until = world.tick(worker).drain_until

    assert _ask(world, worker, within_s=600)
    assert world.tick(worker).drain_until == until
    assert _ask(world, worker, within_s=1)
    assert world.tick(worker).drain_until < until


def test_a_worker_can_be_asked_while_it_loads(world: Any) -> None:
    worker = world.loading_worker()

    assert _ask(world, worker)
    assert world.tick(worker, state=IncarnationState.LOADING).drain_until is not None
    world.tick(worker, state=IncarnationState.DRAINING)
    world.release(worker)


def test_a_worker_that_is_not_alive_cannot_be_asked(world: Any) -> None:
    released, lapsed = world.worker(), world.worker()
    world.release(released)
    world.lapse(lapsed)

    assert not any(_ask(world, worker) for worker in (released, lapsed, "inc_unknown"))
