"""Taking a shard in from a real Postgres whose answers get lost."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Engine, text
from waiting import until

from ponder.domain.state import Lane
from ponder.errors import LeaseLost
from ponder.jobs import incarnation
from ponder.jobs.release import abandon
from ponder_worker.parent import intake
from ponder_worker.parent.engine_handle import EngineHandle
from ponder_worker.parent.intake import Intake
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Admit, Command

from ..claimed_job import claimed_job
from ..shard import queue_shard_of_two
from ..unreliable_database import UnreliableDatabase


@dataclass
class Site:
    """One incarnation that is ready, and one shard of two jobs that waits."""

    database: UnreliableDatabase
    shard_id: int
    capacity: WorkerCapacity = field(default_factory=WorkerCapacity)
    handed_over: list[Admit] = field(default_factory=list)
    ends: list[Exception] = field(default_factory=list)
    is_broken: bool = False

    def __post_init__(self) -> None:
        self.capacity.admit(True)
        self.capacity.report(100, 0)
        self.intake = self.intake_of("inc")

    def intake_of(self, incarnation_id: str) -> Intake:
        return Intake(
            database=cast("Engine", self.database),
            incarnation_id=incarnation_id,
            fingerprint="f",
            capacity=self.capacity,
            engine=cast("EngineHandle", self),
            on_end=self.ends.append,
        )

    def send(self, command: Command) -> None:
        if self.is_broken:
            raise TypeError("not JSON")
        assert isinstance(command, Admit)
        self.handed_over.append(command)


@pytest.fixture
def site(engine: Engine) -> Site:
    with engine.begin() as connection:
        _register(connection, "inc")
        shard_id = queue_shard_of_two(connection)
    return Site(UnreliableDatabase(engine), shard_id)


def _register(connection: Connection, id: str) -> None:
    incarnation.register(
        connection, id=id, worker="w", host="h", pid=1, model="m", machine="cpu", market="spot", lease_s=30
    )
    incarnation.ready(connection, id, fingerprint="f", context_length=100, has_reward_model=False, room_tokens=1000)


def test_a_shard_is_claimed_and_handed_over_and_a_duplicate_message_does_nothing(site: Site) -> None:
    with site.database.begin() as connection:
        connection.execute(text("INSERT INTO learnings (batch_id, sums) VALUES ('b', '{\"x\": 2}')"))
    assert site.intake.take(site.shard_id)
    assert site.intake.take(site.shard_id)
    (admit,) = site.handed_over
    assert [(job.tenant_id, job.batch_id, job.lane) for job in admit.jobs] == [("t", "b", Lane.BATCH)] * 2
    assert admit.learned == {"b": {"x": 2}}
    assert admit.clock_s is not None
    assert abs(admit.clock_s + time.monotonic() - time.time()) < 5, "the engine process can tell Postgres's time"
    assert len(site.capacity.job_ids) == 2


def test_the_jobs_of_an_interactive_shard_are_handed_over_as_such(engine: Engine, site: Site) -> None:
    _sql(engine, "UPDATE shards SET lane = 'interactive'")
    assert site.intake.take(site.shard_id)
    (admit,) = site.handed_over
    assert [job.lane for job in admit.jobs] == [Lane.INTERACTIVE] * 2


def test_a_claim_whose_commit_is_not_answered_is_handed_over_exactly_once(engine: Engine, site: Site) -> None:
    site.database.fails = "after"
    assert site.intake.take(site.shard_id)
    assert len(site.handed_over) == 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM attempts")).scalar_one() == 2


def test_what_somebody_else_holds_is_not_to_be_had(engine: Engine, site: Site) -> None:
    with engine.begin() as connection:
        _register(connection, "other")
    assert site.intake_of("other").take(site.shard_id)
    site.handed_over.clear()
    assert site.intake.take(site.shard_id)
    assert site.handed_over == []


def test_a_message_goes_back_when_the_worker_leaves(site: Site) -> None:
    site.capacity.close()
    assert not site.intake.take(site.shard_id)
    assert site.handed_over == []


def test_an_incarnation_that_was_given_up_takes_nothing(engine: Engine, site: Site) -> None:
    with engine.begin() as connection:
        abandon(connection, "inc", reason="engine_died")
    assert not site.intake.take(site.shard_id)
    assert [type(error) for error in site.ends] == [LeaseLost]
    assert site.handed_over == []


def test_a_bug_after_the_claim_ends_the_incarnation_so_that_its_jobs_are_not_held_for_ever(site: Site) -> None:
    site.is_broken = True
    assert not site.intake.take(site.shard_id)
    assert [type(error) for error in site.ends] == [TypeError]


def test_a_shard_that_is_not_there_is_not_to_be_had(site: Site) -> None:
    assert site.intake.take(site.shard_id + 1)
    assert site.handed_over == []


def test_a_suspect_waits_until_nothing_else_is_held_and_keeps_its_message_meanwhile(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_KEEP_S", 0.05)
    _sql(engine, "UPDATE shards SET runs_alone = true, published_at = '2026-01-01'")
    site.capacity.add([claimed_job(99)], 5)
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(site.intake.take(site.shard_id)), daemon=True)
    thread.start()
    until(lambda: _sql(engine, "SELECT published_at > now() - interval '1 minute' AS kept FROM shards")[0].kept, 10)
    assert (taken, site.handed_over) == ([], [])
    site.capacity.remove([99])
    thread.join(10)
    assert taken == [True]
    assert len(site.handed_over) == 1
    assert not site.capacity.wait_for_room(0, 0), "and takes nothing else"
    site.capacity.remove(site.capacity.job_ids)
    assert site.capacity.wait_for_room(0, 0)


@pytest.mark.parametrize("is_closed", [True, False])
def test_waiting_to_be_alone_ends_with_the_worker_and_with_the_shard(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    monkeypatch.setattr(intake, "_KEEP_S", 0.05)
    _sql(engine, "UPDATE shards SET runs_alone = true")
    site.capacity.add([claimed_job(99)], 5)
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(site.intake.take(site.shard_id)), daemon=True)
    thread.start()
    if is_closed:
        site.capacity.close()
    else:
        _sql(engine, "UPDATE shards SET state = 'finished'")
    thread.join(10)
    assert taken == [not is_closed], "the message goes back only if somebody can use it"
    assert site.handed_over == []


def _sql(engine: Engine, statement: str) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result) if result.returns_rows else []
