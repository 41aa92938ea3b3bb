"""Finding the cloud that a worker runs on, and watching it for as long as the worker lives."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from metadata_server import (
    AnyCloud,
    AzureMachine,
    ComputeEngine,
    Ec2,
    MetadataServer,
    drip,
    metadata_server,
    send,
)
from structlog.testing import capture_logs
from waiting import until

from ponder_worker.parent.notices import cloud_watch
from ponder_worker.parent.notices.cloud_watch import CloudWatch
from ponder_worker.parent.notices.clouds import CLOUDS
from ponder_worker.parent.notices.metadata_service import MetadataService
from ponder_worker.parent.notices.notice import Notice, Reason


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with metadata_server() as server:
        yield server


def _watch(server: MetadataServer, given: queue.SimpleQueue[Notice], *names: str) -> CloudWatch:
    service = MetadataService(server.url)
    return CloudWatch([CLOUDS[name](service, partial(datetime.now, UTC)) for name in names or CLOUDS], given.put)


@pytest.mark.parametrize(("name", "cloud"), [("aws", Ec2()), ("gcp", ComputeEngine()), ("azure", AzureMachine())])
def test_the_cloud_that_answers_is_found_and_its_notice_is_given(
    server: MetadataServer, name: str, cloud: AnyCloud
) -> None:
    server.cloud = cloud
    cloud.preempt(60)
    given: queue.SimpleQueue[Notice] = queue.SimpleQueue()

    asyncio.run(_watch(server, given).run())

    assert given.get_nowait().source == name
    assert given.empty()


@pytest.mark.parametrize("behave", [lambda handler: False, drip, lambda handler: send(handler, (200, {}, b"hello"))])
def test_where_no_cloud_answers_each_is_asked_a_few_times_and_the_log_warns(
    server: MetadataServer, behave: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.instead = behave  # type: ignore[assignment]
    monkeypatch.setattr(cloud_watch, "_PAUSES_S", (0.01,))
    given: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    began_at = time.monotonic()

    with capture_logs() as logs:
        asyncio.run(_watch(server, given).run())

    assert time.monotonic() - began_at < 8
    first_asked = [path.split("/")[1] for _, path in server.requests]
    assert [first_asked.count(root) for root in ("computeMetadata", "metadata")] == [2, 2]
    assert [(line["event"], line["log_level"]) for line in logs] == [("no_notices", "warning")]
    assert given.empty()


def test_a_cloud_that_misses_the_first_look_is_found_by_the_next(
    server: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a spot machine that has just booted would else run unwatched for as long as it lives."""
    server.cloud = ec2 = Ec2()
    ec2.preempt(60)
    began_at = time.monotonic()
    server.instead = lambda handler: time.monotonic() - began_at < 0.5 and send(handler, (503, {}, b""))
    monkeypatch.setattr(cloud_watch, "_PAUSES_S", (0.1, 0.6))
    given: queue.SimpleQueue[Notice] = queue.SimpleQueue()

    asyncio.run(_watch(server, given).run())

    assert given.get_nowait().source == "aws"


class _Buggy:
    """A cloud whose answers cannot be read at first."""

    name = "buggy"
    pause_s = 0.0

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)

    async def is_here(self) -> bool:
        return await self.look() is not None

    async def look(self) -> Notice | None:
        if self._failures:
            raise self._failures.pop(0)
        return Notice.preempting(self.name, "preempted")


def test_whatever_breaks_is_logged_and_the_watch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_watch, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(cloud_watch, "_RETRY_S", 0.0)
    given: queue.SimpleQueue[Notice] = queue.SimpleQueue()

    with capture_logs() as logs:
        asyncio.run(CloudWatch([_Buggy(KeyError("a"))], given.put).run())
        asyncio.run(CloudWatch([_Buggy(KeyError("a")), _Buggy(KeyError("b"))], given.put).run())

    assert given.qsize() == 2
    broken = [line["log_level"] for line in logs if line["event"] == "notices_broke"]
    assert broken == ["error"] * 3


def test_an_address_that_nobody_listens_on_ends_the_watch(
    server: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.url = "http://127.0.0.1:9"
    monkeypatch.setattr(cloud_watch, "_PAUSES_S", ())

    asyncio.run(_watch(server, queue.SimpleQueue()).run())


def test_a_recommendation_is_given_once_and_the_watch_goes_on_to_the_interruption(
    server: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cloud = ec2 = Ec2()
    given: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    watch = _watch(server, given, "aws")
    monkeypatch.setattr("ponder_worker.parent.notices.clouds.aws.Aws.pause_s", 0.01)
    ec2.recommend(seconds=1)
    watch.start()

    assert given.get(timeout=5).reason is Reason.DRAINED
    num_asked = len(server.requests)
    until(lambda: len(server.requests) > num_asked + 6, 30)
    assert given.empty()
    ec2.preempt(120)
    assert given.get(timeout=5).reason is Reason.PREEMPTED


def test_a_service_that_fails_is_asked_again_at_leisure_and_complained_about_once(
    server: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cloud = AzureMachine()
    server.cloud.preempt(30)
    answers = iter([(503, b""), (200, b"<html>"), (200, b"{}"), (302, b"")])

    def fail_at_first(handler: BaseHTTPRequestHandler) -> bool:
        reply = next(answers, None)
        return reply is not None and send(handler, (reply[0], {}, reply[1]))

    server.instead = fail_at_first
    monkeypatch.setattr(cloud_watch, "_RETRY_S", 0.05)
    given: queue.SimpleQueue[Notice] = queue.SimpleQueue()

    with capture_logs() as logs:
        asyncio.run(_watch(server, given, "azure").run())

    assert given.get_nowait().reason is Reason.PREEMPTED
    assert [line["event"] for line in logs] == ["watching_notices", "notices_unanswered", "notices_answered_again"]
    assert "503" in logs[1]["error"]
