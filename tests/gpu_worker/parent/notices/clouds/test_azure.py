from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_server import AzureMachine, MetadataServer, metadata_server, send

from ponder_worker.parent.notices.clouds.azure import Azure
from ponder_worker.parent.notices.metadata_service import MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

from .garbage import GARBAGE, STATUSES


@pytest.fixture(scope="module")
def server() -> Iterator[MetadataServer]:
    with metadata_server() as server:
        yield server


@pytest.fixture
def machine(server: MetadataServer) -> AzureMachine:
    server.cloud, server.instead = AzureMachine(), lambda handler: False
    return server.cloud


@pytest.fixture
def azure(server: MetadataServer, machine: AzureMachine) -> Azure:
    return Azure(MetadataService(server.url), partial(datetime.now, UTC))


def _look(azure: Azure) -> Notice | None:
    return asyncio.run(azure.look())


def test_a_machine_is_recognised_by_its_name(azure: Azure, server: MetadataServer) -> None:
    assert asyncio.run(azure.is_here())
    server.cloud = None
    with pytest.raises(NoAnswer, match="404"):
        asyncio.run(azure.is_here())


def test_an_eviction_preempts_and_is_acknowledged_only_when_the_worker_says_so(
    azure: Azure, machine: AzureMachine, server: MetadataServer
) -> None:
    assert _look(azure) is None
    machine.preempt(seconds=30)

    notice = _look(azure)

    assert notice is not None
    assert notice.acknowledge is not None
    assert notice.warning_s is not None
    assert (notice.reason, notice.source, notice.kind) == (Reason.PREEMPTED, "azure", "preempt")
    assert 28 < notice.warning_s < 31
    assert notice.detail == f"azure notice, {notice.warning_s:.0f} s before"
    assert machine.started == []
    notice.acknowledge()
    assert machine.started == ["event-0"]
    server.instead = lambda handler: send(handler, (500, {}, b""))
    notice.acknowledge()  # Azure waits for its own time then, and the worker goes all the same.


def test_an_eviction_that_has_begun_preempts_and_waits_for_nobody(azure: Azure, machine: AzureMachine) -> None:
    machine.schedule("Preempt", 0, status="Started")

    notice = _look(azure)

    assert notice is not None
    assert (notice.reason, notice.warning_s, notice.acknowledge) == (Reason.PREEMPTED, None, None)


def test_events_of_other_machines_and_pauses_are_no_notices(azure: Azure, machine: AzureMachine) -> None:
    machine.schedule("Preempt", 30, machine="WestNO_1")
    machine.schedule("Freeze", 30)
    machine.schedule("SomethingNew", 30)

    assert _look(azure) is None


@pytest.mark.parametrize("kind", ["Reboot", "Redeploy", "Terminate"])
def test_an_event_that_is_announced_long_before_drains_when_it_is_near(
    azure: Azure, machine: AzureMachine, kind: str
) -> None:
    machine.schedule(kind, 600)
    assert _look(azure) is None, "until then the machine is worth its price"

    machine.events.clear()
    machine.schedule(kind, 100)
    notice = _look(azure)
    assert notice is not None
    assert notice.warning_s is not None
    assert (notice.reason, notice.kind, notice.acknowledge) == (Reason.DRAINED, kind.lower(), None)
    assert notice.detail == f"azure {kind.lower()} notice, {notice.warning_s:.0f} s before"
    assert 0 < notice.drain_s < notice.warning_s

    machine.schedule(kind, 5)
    notice = _look(azure)
    assert notice is not None
    assert notice.reason is Reason.PREEMPTED, "the gravest of all counts"


_EVENT = {"EventId": "e", "EventType": "Preempt", "EventStatus": "Scheduled", "Resources": ["WestNO_0"]}


def _broken(changes: dict[str, Any]) -> bytes:
    return json.dumps({"Events": [_EVENT | changes]}).encode()


@given(
    status=STATUSES,
    body=GARBAGE
    | st.builds(
        lambda name, value: _broken({name: value}),
        st.sampled_from([*_EVENT, "NotBefore"]),
        st.sampled_from([7, [7], {"a": "b"}, ["x"] * 3, True]),
    )
    | st.text(min_size=1, max_size=30).map(lambda text: _broken({"NotBefore": text}))
    | st.sampled_from(["Mon, 99 Sep 2016 18:29:47 GMT", "Mon, 19 Sep 99999 18:29:47 GMT", "0 0 0 0:0:0 +9999"]).map(
        lambda text: _broken({"NotBefore": text})
    ),
)
@settings(max_examples=150)
def test_no_bad_answer_is_a_notice(server: MetadataServer, status: int, body: bytes) -> None:
    server.cloud = AzureMachine()
    server.instead = lambda handler: "scheduledevents" in handler.path and send(handler, (status, {}, body))
    azure = Azure(MetadataService(server.url), partial(datetime.now, UTC))

    try:
        assert _look(azure) is None
    except NoAnswer:
        return
    assert status == 200
    assert json.loads(body)["Events"] is not None
