"""Who asks for the plans gets those that the active autoscaler acts on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from ponder.errors import InvalidInput, NotFound, UnknownMachine
from ponder.fleet.autoscaler import Autoscaler
from ponder.fleet.proposing.proposal import Answer, Answers, answer
from ponder.fleet.proposing.scope import LEADER, Inquiry

BOTH = (("cpu", "spot"), ("cpu", "on_demand"))
ON_DEMAND = ("cpu", "on_demand")


@pytest.fixture
def active(connection: Connection, autoscaler: Callable[..., Autoscaler]) -> Iterator[Callable[..., Autoscaler]]:
    """Makes the active autoscaler."""

    def make(*models: str, **options: Any) -> Autoscaler:
        with connection.begin():
            connection.execute(text(f"SELECT pg_advisory_lock({LEADER})"))
        return autoscaler(*models, **options)

    yield make
    with connection.begin():
        connection.execute(text("SELECT pg_advisory_unlock_all()"))


def _ask(world: Any, model: str | None = None, **options: Any) -> Answers:
    with world.engine.connect() as connection:
        return answer(connection, Inquiry(model, **options))


def _wanted(one: Answer) -> dict[tuple[str, str], int]:
    return {(want.pool.machine, want.pool.market): want.num_workers for want in one.proposal.wants}


def _has_work(world: Any, model: str = "demo", *, fingerprint: str = "f1", num_workers: int = 3) -> None:
    """Lets a model be timed at 100 tokens a second, with work that keeps so many workers busy for an hour."""
    known = world.worker(machine="cpu", model=model, fingerprint=fingerprint)
    world.sql("UPDATE incarnations SET state = 'ended' WHERE id = :id", id=known)
    world.sql(
        "INSERT INTO experience (tenant_id, fingerprint, strategy, level, sums)"
        " VALUES (:tenant, :fingerprint, '', '', CAST(:sums AS jsonb))",
        tenant=world.tenant(),
        fingerprint=fingerprint,
        sums=json.dumps({"time.cpu.x": 10_000, "time.cpu.y": 100}),
    )
    tokens = 3_600 * num_workers - 1_800
    world.batch(100, tokens=tokens, expires_in_s=3_600, models=(model,), fingerprint=fingerprint)


def test_the_plan_is_the_one_that_the_active_autoscaler_acts_on(world: Any, active: Any, log: Any) -> None:
    _has_work(world)
    (free,) = _ask(world).answers
    assert _wanted(free) == {("cpu", "spot"): 3}
    assert not free.is_acted_on
    active(offers=[ON_DEMAND], max_workers=2).turn()
    found = _ask(world)
    (one,) = found.answers
    assert found.is_active
    assert found.scope.offered == {ON_DEMAND}
    assert one.is_acted_on
    assert _wanted(one) == {ON_DEMAND: 2}
    (want,) = one.proposal.wants
    assert {why.split("; ")[0] for what, why in log() if what == "start"} == {want.reason}
    assert "no spot machine may be started" in want.reason
    assert any("will be late within the bounds" in reason for reason in one.reasons)
    assert "will be late within the bounds" in log()[0][1], "the log says why there are not more"


def test_options_that_are_given_go_before_the_autoscalers_own(world: Any, active: Any) -> None:
    _has_work(world)
    active("demo", offers=[ON_DEMAND], min_workers=1, max_workers=2).turn()
    (more,) = _ask(world, max_workers=9).answers
    assert (_wanted(more), more.is_acted_on) == ({ON_DEMAND: 3}, False)
    (poor,) = _ask(world, "demo", max_nanodollars_per_hour=150_000_000).answers
    assert _wanted(poor) == {ON_DEMAND: 1}
    (spot,) = _ask(world, machines=frozenset({("cpu", "spot")})).answers
    assert _wanted(spot) == {("cpu", "spot"): 2}
    with pytest.raises(InvalidInput, match="must not be below the fewest, 3"):
        _ask(world, min_workers=3)
    with pytest.raises(UnknownMachine):
        _ask(world, machines=frozenset({("abacus", "spot")}))


def test_it_knows_where_starts_have_failed_and_until_when_none_is_tried(world: Any, cloud: Any, active: Any) -> None:
    _has_work(world, num_workers=1)
    scaler = active(offers=BOTH, max_workers=1)
    cloud.break_verb("start", 75)
    for _ in range(2):
        scaler.turn()
        world.sql("UPDATE fleet_workers SET ended_at = ended_at - interval '6 seconds'")
    (one,) = _ask(world).answers
    assert _wanted(one) == {ON_DEMAND: 1}
    assert any(reason.startswith("2 starts on cpu (spot) failed in a row") for reason in one.reasons)
    (anyway,) = _ask(world, machines=frozenset(BOTH)).answers
    assert _wanted(anyway) == {("cpu", "spot"): 1}


def test_the_bounds_hold_for_all_models_together(world: Any, cloud: Any, active: Any) -> None:
    _has_work(world, "one", fingerprint="f1", num_workers=3)
    _has_work(world, "two", fingerprint="f2", num_workers=3)
    active(offers=[ON_DEMAND], max_workers=4).turn()
    assert len(cloud.machines) == 4
    one, two = _ask(world).answers
    assert [(sum(_wanted(each).values()), sum(each.allowed.values())) for each in (one, two)] == [(3, 4), (3, 4)]
    for each in (one, two):
        (want,) = each.proposal.wants
        assert each.allowed[want.pool] == 2
        assert each.reasons[-1] == "the bounds on all models together leave 2 of the 3 workers on cpu (on_demand)"
    assert [each.proposal.model for each in _ask(world, "two").answers] == ["two"]
    assert _ask(world, "two").answers[0].reasons == two.reasons


def test_a_model_that_the_autoscaler_does_not_look_after_is_planned_without_it(world: Any, active: Any) -> None:
    _has_work(world, "one", fingerprint="f1")
    _has_work(world, "two", fingerprint="f2")
    active("one", offers=[ON_DEMAND], max_workers=2).turn()
    one, two = _ask(world).answers
    assert (one.proposal.model, one.is_acted_on) == ("one", True)
    assert (two.proposal.model, two.is_acted_on, _wanted(two)) == ("two", False, {("cpu", "spot"): 2})
    assert two.reasons[-1] == "the active autoscaler does not look after this model"
    assert [each.proposal.model for each in _ask(world, "two").answers] == ["two"]
    with pytest.raises(NotFound):
        _ask(world, "three")


def test_a_first_worker_is_in_the_plan(world: Any, active: Any, log: Any) -> None:
    active("demo", offers=[ON_DEMAND], max_workers=2).turn()
    (one,) = _ask(world).answers
    (want,) = one.proposal.wants
    assert log() == [("start", want.reason)]
    assert one.reasons == (), "not that nothing can be planned"


def test_no_plan_counts_on_workers_for_jobs_that_are_pinned_to_former_weights(world: Any, active: Any) -> None:
    _has_work(world)
    world.sql("UPDATE models SET last_seen_at = last_seen_at - interval '1 hour'")
    newer = world.worker(machine="cpu", fingerprint="f2")
    world.sql("UPDATE incarnations SET state = 'ended' WHERE id = :id", id=newer)
    active(offers=[ON_DEMAND], max_workers=2).turn()
    (one,) = _ask(world).answers
    assert one.proposal.wants == ()
    (reason,) = one.reasons
    assert "pinned to former weights" in reason


def test_an_autoscaler_that_is_gone_leaves_no_trace_in_the_plan(
    world: Any, connection: Connection, active: Any
) -> None:
    _has_work(world)
    active(offers=[ON_DEMAND], max_workers=1).turn()
    with connection.begin():
        connection.execute(text("SELECT pg_advisory_unlock_all()"))
    found = _ask(world)
    assert not found.is_active
    assert _wanted(found.answers[0]) == {("cpu", "spot"): 3}
    with world.engine.connect() as other:  # which is active, and has not planned yet
        other.execute(text(f"SELECT pg_advisory_lock({LEADER})"))
        assert not _ask(world).is_active
        other.execute(text("SELECT pg_advisory_unlock_all()"))
