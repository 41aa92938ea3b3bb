from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_server import ComputeEngine, MetadataServer, metadata_server, send

from ponder_worker.parent.notices.clouds.gcp import Gcp
from ponder_worker.parent.notices.metadata_service import MetadataService, NoAnswer
from ponder_worker.parent.notices.notice import Notice, Reason

from .garbage import GARBAGE, STATUSES


@pytest.fixture(scope="module")
def server() -> Iterator[MetadataServer]:
    with metadata_server() as server:
        yield server


@pytest.fixture
def engine(server: MetadataServer) -> ComputeEngine:
    server.cloud, server.instead = ComputeEngine(longest_wait_s=0.1), lambda handler: False
    return server.cloud


@pytest.fixture
def gcp(server: MetadataServer, engine: ComputeEngine) -> Gcp:
    return Gcp(MetadataService(server.url), partial(datetime.now, UTC), has_gpu=False)


def _look(gcp: Gcp) -> Notice | None:
    return asyncio.run(gcp.look())


def test_an_instance_is_recognised_by_the_header_of_an_answer(gcp: Gcp, server: MetadataServer) -> None:
    assert asyncio.run(gcp.is_here())
    server.instead = lambda handler: send(handler, (200, {}, b"12345"))
    with pytest.raises(NoAnswer, match="Google"):
        asyncio.run(gcp.is_here())


def test_a_preemption_is_told_while_the_worker_waits_for_it(gcp: Gcp, server: MetadataServer) -> None:
    server.cloud = engine = ComputeEngine()
    assert _look(gcp) is None, "the first look waits for nothing"
    threading.Timer(0.3, engine.preempt, (30,)).start()
    began_at = time.monotonic()

    notice = _look(gcp)

    assert 0.2 < time.monotonic() - began_at < 3
    assert notice is not None
    assert (notice.reason, notice.source, notice.detail) == (Reason.PREEMPTED, "gcp", "gcp notice")


def test_a_preemption_between_two_looks_is_not_missed(gcp: Gcp, engine: ComputeEngine) -> None:
    assert _look(gcp) is None
    engine.preempt(30)

    assert _look(gcp) is not None


def test_an_instance_that_was_preempted_before_the_first_look_goes(gcp: Gcp, engine: ComputeEngine) -> None:
    engine.preempt(30)

    assert _look(gcp) is not None


def test_a_machine_without_a_gpu_drains_in_the_minute_before_maintenance_ends_it(
    gcp: Gcp, engine: ComputeEngine
) -> None:
    assert _look(gcp) is None
    engine.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")

    notice = _look(gcp)

    assert notice is not None
    assert (notice.reason, notice.kind) == (Reason.DRAINED, "terminate")
    assert notice.detail == "gcp maintenance notice, 60 s before"
    assert 0 < notice.drain_s < 60


def test_a_machine_with_a_gpu_works_for_most_of_the_hour_that_it_is_given(
    server: MetadataServer, engine: ComputeEngine
) -> None:
    now = datetime.now(UTC)
    gcp = Gcp(MetadataService(server.url), lambda: now, has_gpu=True)
    assert _look(gcp) is None
    engine.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    assert _look(gcp) is None
    now += timedelta(minutes=55)
    assert _look(gcp) is None
    now += timedelta(minutes=3)

    notice = _look(gcp)

    assert notice is not None
    assert (notice.reason, notice.warning_s) == (Reason.DRAINED, 120)
    assert 0 < notice.drain_s < 120


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_worker_does_not_leave_because_of_an_end_that_was_announced_before_it_came(
    server: MetadataServer, engine: ComputeEngine, *, has_gpu: bool
) -> None:
    """It was started there after a former one had left; it would leave again and again."""
    engine.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    now = datetime.now(UTC)
    gcp = Gcp(MetadataService(server.url), lambda: now, has_gpu=has_gpu)
    assert _look(gcp) is None
    now += timedelta(minutes=70)
    assert _look(gcp) is None
    engine.preempt(30)
    assert _look(gcp) is not None


def test_a_live_migration_leaves_time_to_drain_unless_it_was_announced_before_the_worker_came(
    gcp: Gcp, engine: ComputeEngine
) -> None:
    engine.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    assert _look(gcp) is None
    engine.set("maintenance-event", "NONE")
    assert _look(gcp) is None
    engine.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")

    notice = _look(gcp)

    assert notice is not None
    assert (notice.reason, notice.detail) == (Reason.DRAINED, "gcp migration recommendation")
    assert 0 < notice.drain_s < 60


@given(
    status=STATUSES,
    body=GARBAGE | st.sampled_from([b"true", b"TRUE!", b"TRUE TRUE", b"FALSE", b"YES", b"1"]),
    flavor=st.sampled_from(["Google", "google", ""]),
)
@settings(max_examples=100)
def test_no_bad_answer_is_a_notice(server: MetadataServer, status: int, body: bytes, flavor: str) -> None:
    server.cloud = None
    server.instead = lambda handler: send(handler, (status, {"Metadata-Flavor": flavor, "ETag": "\x7f x"}, body))
    gcp = Gcp(MetadataService(server.url), partial(datetime.now, UTC))

    with pytest.raises(NoAnswer):
        _look(gcp)
