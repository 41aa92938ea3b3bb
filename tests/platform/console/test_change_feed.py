"""The stream that tells pages of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pg8000.exceptions import InterfaceError
from sqlalchemy import Engine
from structlog.testing import capture_logs
from world import World

from ponder.console.change_feed import ChangeFeed, Topic, TopicKind
from ponder.settings import Settings

CHANGED = b"event: changed\ndata:\n\n"


async def _next_change(stream: AsyncIterator[bytes]) -> None:
    async for event in stream:
        if event == CHANGED:
            return
    raise AssertionError("the stream ended without a change")


def _told(engine: Engine, topic: Topic, change: Callable[[], object]) -> bool:
    """Whether an open page is told of a change."""

    async def listen() -> bool:
        stream = ChangeFeed(engine).stream(topic, lasts_s=30)
        await asyncio.wait_for(_next_change(stream), 20)  # after its first round
        await asyncio.to_thread(change)
        try:
            await asyncio.wait_for(_next_change(stream), 5)
        except TimeoutError:
            return False
        return True

    return asyncio.run(listen())


def test_pages_of_a_batch_hear_of_its_jobs_its_pause_and_its_end(engine: Engine, world: World) -> None:
    batch = world.batch(2)
    worker = world.worker(room_tokens=1_000)
    topic = Topic(TopicKind.BATCH, batch)
    assert _told(engine, topic, lambda: world.sql("UPDATE batches SET paused_at = clock_timestamp()"))
    assert _told(engine, topic, lambda: world.sql("UPDATE batches SET paused_at = NULL"))
    assert _told(engine, topic, lambda: world.claim_all(worker))
    assert _told(engine, topic, lambda: world.sql("UPDATE batches SET state = 'cancelling' WHERE id = :id", id=batch))


def test_pages_of_a_batch_hear_nothing_of_others(engine: Engine, world: World) -> None:
    batch, other = world.batch(), world.batch()
    pause = "UPDATE batches SET paused_at = clock_timestamp() WHERE id = :id"
    assert not _told(engine, Topic(TopicKind.BATCH, batch), lambda: world.sql(pause, id=other))


def test_pages_of_a_tenant_hear_of_a_new_batch(engine: Engine, world: World) -> None:
    tenant = world.tenant()
    assert _told(engine, Topic(TopicKind.TENANT, tenant), lambda: world.batch(tenant=tenant))
    assert not _told(engine, Topic(TopicKind.TENANT, tenant), world.batch)


def test_pages_of_a_job_hear_that_it_has_begun(engine: Engine, world: World) -> None:
    [job] = world.jobs(world.batch())
    worker = world.worker(room_tokens=1_000)
    assert _told(engine, Topic(TopicKind.JOB, str(job)), lambda: world.claim_all(worker))


def test_pages_of_the_fleet_hear_of_a_worker(engine: Engine, world: World) -> None:
    assert _told(engine, Topic(TopicKind.FLEET), world.worker)


@pytest.mark.parametrize("failure", [OSError("no answer"), InterfaceError("network error on write")])
def test_a_stream_survives_a_failure_of_postgres(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    batch = world.batch()
    feed = ChangeFeed(engine)
    found, num_asked = feed._versions, 0

    def failing_at_first(*topics: object) -> dict[Topic, str]:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 1:
            raise failure
        return found(*topics)  # type: ignore[arg-type]

    monkeypatch.setattr(feed, "_versions", failing_at_first)

    async def listen() -> None:
        await asyncio.wait_for(_next_change(feed.stream(Topic(TopicKind.BATCH, batch), lasts_s=30)), 20)

    asyncio.run(listen())


def test_a_row_of_failures_is_logged_once(engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = ChangeFeed(engine)
    num_asked = 0

    def failing(*_topics: object) -> dict[Topic, str]:
        nonlocal num_asked
        num_asked += 1
        raise InterfaceError("network error on write")

    monkeypatch.setattr(feed, "_versions", failing)

    async def listen() -> None:
        async for _ in feed.stream(Topic(TopicKind.BATCH, world.batch()), lasts_s=3):
            pass

    with capture_logs() as logs:
        asyncio.run(listen())
    assert num_asked > 1
    assert [line["event"] for line in logs] == ["pages are not told of changes"]


def test_one_question_serves_all_pages(engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = [Topic(TopicKind.BATCH, world.batch()) for _ in range(20)]
    feed = ChangeFeed(engine)
    found, num_asked = feed._versions, 0

    def counting(*asked: object) -> dict[Topic, str]:
        nonlocal num_asked
        num_asked += 1
        return found(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(feed, "_versions", counting)

    async def listen() -> None:
        async with asyncio.TaskGroup() as group:
            for topic in topics * 5:
                group.create_task(_next_change(feed.stream(topic, lasts_s=30)))

    asyncio.run(listen())
    assert num_asked <= 5


def test_a_stream_ends_in_time_and_leaves_nothing_behind(engine: Engine, world: World) -> None:
    feed = ChangeFeed(engine)

    async def listen() -> None:
        async for _ in feed.stream(Topic(TopicKind.BATCH, world.batch()), lasts_s=0.5):
            pass

    asyncio.run(listen())
    assert feed._watched == {}


@pytest.fixture
def settings() -> Settings:
    return Settings(max_pages=1)


def test_a_tenant_with_too_many_open_pages_is_told_and_an_operator_is_not(
    browse: Callable[[str], Any], new_key: Callable[..., str], browser: Any
) -> None:
    tenant = browse(new_key("tenants"))
    with tenant.stream("GET", "/events?of=tenant") as first:
        assert first.status_code == 200
        refused = tenant.get("/events?of=tenant")
        assert refused.status_code == 429
        assert "PONDER_MAX_PAGES" in refused.text
        with browser.stream("GET", "/events?of=fleet") as one, browser.stream("GET", "/events?of=fleet") as other:
            assert (one.status_code, other.status_code) == (200, 200)
