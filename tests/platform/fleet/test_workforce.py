from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import Cluster, service_account, serving
from sqlalchemy import Connection, Engine, text

from ponder.fleet import roster
from ponder.fleet.decision import Action, Decision
from ponder.fleet.provider import Order, Pool, Provider
from ponder.fleet.providers.kubernetes import Kubernetes
from ponder.fleet.worker_state import Phase
from ponder.fleet.workforce import Workforce

POOL = Pool("demo", "h200", "spot")
START = Decision(Action.START, POOL, "there is work")
Log = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def now(connection: Connection) -> datetime:
    with connection.begin():
        found = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert isinstance(found, datetime)
    return found


class Shift:
    """A workforce, and a clock that can be ahead of Postgres's."""

    def __init__(self, connection: Connection, provider: Provider) -> None:
        self.connection = connection
        self.workforce = Workforce(connection, provider, drain_s=20, goes_on=lambda: True)

    def order(self) -> roster.Row:
        self.workforce.order(START, 3_000_000_000)
        return self.rows()[-1]

    def follow(self, later_s: float = 0) -> None:
        self.workforce.follow(now(self.connection) + timedelta(seconds=later_s))

    def stop_marked(self, later_s: float = 0) -> None:
        self.workforce.stop_marked(now(self.connection) + timedelta(seconds=later_s))

    def rows(self) -> list[roster.Row]:
        with self.connection.begin():
            return roster.open_rows(self.connection)


def test_a_worker_is_followed_from_its_order_to_its_end(
    world: Any, cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider())
    row = shift.order()
    assert (row.phase, row.handle, cloud.machines) == (Phase.STARTING, f"i-{row.id}", {row.id})
    incarnation = world.loading_worker(worker=row.id)
    assert shift.rows()[0].phase is Phase.LOADING
    world.ready(incarnation)
    shift.follow()
    shift.workforce.drain(Decision(Action.DRAIN, POOL, "it was too many", row.id))
    assert shift.rows()[0].phase is Phase.DRAINING
    assert world.sql("SELECT extract(epoch FROM drain_until - clock_timestamp()) AS s FROM incarnations")[0].s > 15
    world.release(incarnation)
    shift.follow()
    assert cloud.machines == set(), "it would still cost money"
    shift.follow()
    assert (shift.rows(), cloud.machines) == ([], set())
    assert cloud.calls == [f"start {row.id}", f"stop {row.id} i-{row.id}"]
    start, (ready, after), drain, ended = log()
    assert (start, drain, ended) == (
        ("start", "there is work"), ("drain", "it was too many"), ("ended", "it was drained")
    )  # fmt: skip
    assert ready == "ready"
    assert re.fullmatch(r"\d+ s after it was ordered", after)


def test_an_order_whose_autoscaler_died_is_given_once_and_nothing_is_forgotten(
    world: Any, cloud: Any, connection: Connection
) -> None:
    first = Shift(connection, cloud.provider())
    told = first.order()
    with connection.begin():  # it died before the provider heard of this one
        roster.add(connection, Order("fleet-untold", POOL, 2, "fleet-untold"), 1)
    for _ in range(2):
        Shift(connection, cloud.provider()).follow()
    assert cloud.calls == [f"start {told.id}", "start fleet-untold"]
    assert {row.id for row in first.rows()} == {told.id, "fleet-untold"}


def test_a_worker_that_was_killed_is_noticed_before_its_lease_ends_and_is_no_strangers(
    world: Any, cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider())
    row = shift.order()
    world.ready(world.loading_worker(worker=row.id))
    shift.follow()
    cloud.take_away(row.id)
    shift.follow()
    assert shift.rows() == []
    assert log()[-1] == ("ended", "it died or was taken away: its provider has it no more")
    with connection.begin():
        assert roster.foreign_workers(connection) == [], "its incarnation lives on until its lease ends"
        assert roster.past(connection)[1] == {}, "it had become ready"


def test_a_start_that_fails_is_cleaned_up_unless_nothing_was_started(
    cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider())
    cloud.break_verb("start", 1)
    row = shift.order()
    assert row.phase is Phase.STOPPING, "it may exist, and counts until it was stopped"
    shift.stop_marked()
    shift.follow()
    cloud.break_verb("start", 75)
    shift.workforce.order(START, 1)
    assert shift.rows() == []
    assert [call.split()[0] for call in cloud.calls] == ["start", "stop", "start"]
    assert [what for what, _ in log()] == ["start", "failed", "failed", "start", "failed"]
    assert log()[1][1].endswith("exit code 1: no quota")
    with connection.begin():
        assert roster.past(connection)[1][POOL].num == 2


def test_what_cannot_be_stopped_counts_and_is_tried_again_after_ever_longer_pauses(
    cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider())
    row = shift.order()
    cloud.break_verb("stop")
    shift.workforce.mark(Decision(Action.GIVE_UP, POOL, "it did not register within 600 s", row.id))
    for later_s in (0, 4, 6, 10, 17):
        shift.stop_marked(later_s)
    assert [why for what, why in log() if what == "failed"] == [
        f"it could not be stopped, and will be tried again in {pause_s} s: cloud ended with exit code 1: no quota"
        for pause_s in (5, 10, 20)
    ]
    shift.follow()
    assert len(shift.rows()) == 1
    cloud.repair("stop")
    shift.stop_marked(3600)
    shift.follow()
    assert (shift.rows(), cloud.machines) == ([], set())


def test_a_provider_that_cannot_tell_ends_no_worker_and_is_logged_once(
    cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider())
    shift.order()
    cloud.break_verb("list")
    cloud.take_away(shift.rows()[0].id)
    shift.follow(3600)
    shift.follow(3600)
    assert [what for what, _ in log()] == ["start", "failed"]
    assert len(shift.rows()) == 1
    cloud.repair("list")
    shift.follow(3600)
    assert log()[-1] == ("failed", "it ended before it had registered")


def test_without_a_list_a_worker_ends_when_its_incarnation_does_and_its_machine_is_stopped(
    world: Any, cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider(has_list=False))
    row = shift.order()
    incarnation = world.worker(worker=row.id)
    shift.follow()
    world.release(incarnation)
    shift.follow()
    shift.stop_marked()
    shift.follow()
    assert (shift.rows(), cloud.machines) == ([], set())
    what, why = log()[-1]
    assert (what, why.partition(":")[0]) == ("ended", "it left")


def test_a_machine_that_appears_after_its_order_ended_is_stopped_and_one_of_somebody_else_is_not(
    cloud: Any, connection: Connection, log: Log
) -> None:
    shift = Shift(connection, cloud.provider())
    row = shift.order()
    cloud.take_away(row.id)
    shift.follow(40)
    assert shift.rows() == []
    for name in (row.id, "somebody-elses"):
        (cloud.folder / "machines" / name).touch()
    shift.follow()
    shift.follow(20)
    assert row.id in cloud.machines
    shift.follow(40)
    assert cloud.machines == {"somebody-elses"}
    assert cloud.calls[-1] == f"stop {row.id} i-{row.id}"
    assert log()[-1] == ("stop", "the provider has it, and it has no order")


def test_pods_belong_to_orders_and_one_that_is_replaced_by_its_deployment_is_not_started_twice(
    world: Any, connection: Connection, tmp_path: Path
) -> None:
    cluster = Cluster()
    cluster.scale("ponder-demo-spot", 1)  # as it was installed
    world.loading_worker(worker=min(cluster.pods))
    with serving(cluster) as address:
        provider = Kubernetes(
            deployment="ponder-{model}-{market}",
            api_server=address,
            service_account=service_account(tmp_path / "account"),
        )
        shift = Shift(connection, provider)
        for _ in range(2):
            shift.order()
        shift.follow()
        first, second = sorted(cluster.pods)
        assert [(row.worker, row.phase) for row in shift.rows()] == [(first, Phase.LOADING), (second, Phase.STARTING)]
        world.ready(world.loading_worker(worker=second))
        shift.follow()
        assert [row.phase for row in shift.rows()] == [Phase.LOADING, Phase.READY]

        del cluster.pods[second]  # its node was taken away
        cluster.scale("ponder-demo-spot", 2)
        shift.follow()
        assert [row.worker for row in shift.rows()] == [first]
        shift.order()
        shift.follow()
        assert len(cluster.pods) == 2
        (third,) = set(cluster.pods) - {first}
        assert [row.worker for row in shift.rows()] == [first, third]

        shift.workforce.mark(Decision(Action.STOP, POOL, "it was too many", shift.rows()[0].id))
        shift.stop_marked()
        shift.follow()
        assert (set(cluster.pods), [row.worker for row in shift.rows()]) == ({third}, [third])
        provider.close()


@pytest.fixture
def pods(connection: Connection, tmp_path: Path) -> Iterator[tuple[Cluster, Shift]]:
    cluster = Cluster(replicas={"ponder-demo-spot": 0})
    with serving(cluster) as address:
        account = service_account(tmp_path / "account")
        provider = Kubernetes(deployment="ponder-{model}-{market}", api_server=address, service_account=account)
        yield cluster, Shift(connection, provider)
        provider.close()


def test_a_pod_that_is_given_up_and_replaced_in_one_turn_goes(pods: tuple[Cluster, Shift]) -> None:
    cluster, shift = pods
    row = shift.order()
    shift.follow()
    (given_up,) = cluster.pods
    shift.workforce.mark(Decision(Action.GIVE_UP, POOL, "it did not register within 600 s", row.id))
    shift.order()
    shift.stop_marked()
    shift.follow()
    (other,) = cluster.pods
    assert other != given_up
    assert [row.worker for row in shift.rows()] == [other]


def test_of_several_pods_that_leave_in_one_turn_none_takes_a_busy_one_with_it(pods: tuple[Cluster, Shift]) -> None:
    cluster, shift = pods
    for _ in range(4):
        shift.order()
    shift.follow()
    busy = shift.rows()[-1].worker
    for row in shift.rows()[:3]:
        shift.workforce.mark(Decision(Action.STOP, POOL, "it was too many", row.id))
    seen: list[bool] = []
    scale, cluster.scale = cluster.scale, lambda *to: (scale(*to), seen.append(busy in cluster.pods))[0]  # type: ignore[method-assign]
    shift.stop_marked()
    assert set(cluster.pods) == {busy}
    assert seen
    assert all(seen)


def test_of_several_pods_without_an_order_none_takes_a_busy_one_with_it(pods: tuple[Cluster, Shift]) -> None:
    cluster, shift = pods
    shift.order()
    shift.follow()
    (busy,) = cluster.pods
    cluster.scale("ponder-demo-spot", 4)
    cluster.pods[busy]["cost"] = -1  # the next that the controller would take
    shift.follow()
    shift.follow(40)
    assert set(cluster.pods) == {busy}


def test_a_worker_starts_once_those_that_are_to_be_stopped_have_made_room(cloud: Any, connection: Connection) -> None:
    shift = Shift(connection, cloud.provider())
    first = shift.order()
    shift.workforce.mark(Decision(Action.GIVE_UP, POOL, "it did not register within 600 s", first.id))
    second = shift.order()
    assert [call.split()[:2] for call in cloud.calls] == [["start", first.id], ["stop", first.id], ["start", second.id]]


@pytest.mark.parametrize("why", ["it was drained", "it was stopped", "its machine goes"])
def test_a_worker_that_has_left_and_is_restarted_in_its_place_does_no_more_work(
    world: Any, cloud: Any, connection: Connection, why: str
) -> None:
    shift = Shift(connection, cloud.provider())
    row = shift.order()
    incarnation = world.worker(worker=row.id)
    if why == "it was drained":
        shift.workforce.drain(Decision(Action.DRAIN, POOL, "it was too many", row.id))
    if why == "it was stopped":
        shift.workforce.mark(Decision(Action.STOP, POOL, "it was too many", row.id))
    world.release(incarnation)
    restarted, _other = world.worker(worker=row.id), world.worker(room_tokens=1_000)
    world.batch()
    (shard,) = world.dispatch()
    assert world.claim(shard, restarted) is None
    reply = world.tick(restarted)
    assert reply.drain_until <= reply.now
    assert shift.rows()[0].phase in (Phase.DRAINING, Phase.STOPPING)


@pytest.mark.parametrize("why", ["it died", "it left long ago", "its order has ended", "nobody ordered it"])
def test_any_other_worker_that_is_restarted_works_again(
    world: Any, cloud: Any, connection: Connection, why: str
) -> None:
    shift = Shift(connection, cloud.provider())
    name = shift.order().id if why != "nobody ordered it" else "mine"
    first = world.worker(worker=name)
    if why != "it died":
        world.release(first)
    if why == "it left long ago":  # and no autoscaler has minded it since
        world.sql("UPDATE incarnations SET ended_at = ended_at - interval '2 minutes'")
    if why == "its order has ended":
        for _ in range(2):
            shift.follow()
        assert shift.rows() == []
    assert world.tick(world.worker(worker=name)).drain_until is None
