"""The Celery worker over a real Redis."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from celery.worker import state
from structlog.testing import capture_logs

from ponder.embedded.redis import EmbeddedRedis
from ponder.queue.celery_app import Message, celery_app, publish
from ponder_worker.parent.consumer import CeleryConsumer, RedisWatch

QUEUE = "ponder.test.batch"


def _publish(url: str, *shard_ids: int) -> None:
    publish(celery_app(url), [Message(shard_id, QUEUE) for shard_id in shard_ids])


def _until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come to pass"
        time.sleep(0.05)


def test_redis_going_away_while_a_message_waits_here_leaves_nobody_deaf(tmp_path: Path) -> None:
    taken: queue.SimpleQueue[int] = queue.SimpleQueue()
    has_room = threading.Event()

    def take(shard_id: int) -> bool:
        taken.put(shard_id)
        return has_room.wait(60)

    with EmbeddedRedis(tmp_path) as server:
        consumer = CeleryConsumer(celery_app(server.url), [QUEUE], "test", take)
        _publish(server.url, 1, 2)
        consumer.start()
        assert taken.get(timeout=60) == 1
        time.sleep(1)  # the second one waits here for the first to be done
        server.stop()
        has_room.set()
        assert taken.get(timeout=60) == 2
        server.start()
        _publish(server.url, 3)
        # What was never acknowledged may come a second time.
        _until(lambda: taken.get(timeout=60) == 3)
        consumer.stop()
        _until(lambda: not consumer.is_alive)


def _fill(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def _demote(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", 1)


def _lock(client: redis.Redis) -> None:
    client.config_set("requirepass", "secret")
    client.client_kill_filter(_type="normal", skipme=True)


def _mend(url: str) -> None:
    client = redis.Redis.from_url(url)
    try:
        client.ping()
    except redis.exceptions.AuthenticationError:
        client = redis.Redis.from_url(url, password="secret")
    client.config_set("requirepass", "")
    client.replicaof("no", "one")
    client.config_set("maxmemory", 0)


@pytest.mark.parametrize("spoil", [_fill, _demote, _lock])
def test_a_redis_that_refuses_ends_nobody_and_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[redis.Redis], None]
) -> None:
    monkeypatch.setattr(state, "should_stop", None)
    taken: queue.SimpleQueue[int] = queue.SimpleQueue()

    def take(shard_id: int) -> bool:
        taken.put(shard_id)
        return True

    with EmbeddedRedis(tmp_path) as server:
        consumer = CeleryConsumer(celery_app(server.url), [QUEUE], "test", take)
        consumer.start()
        _publish(server.url, 1)
        assert taken.get(timeout=60) == 1
        _publish(server.url, 2, 3)
        spoil(redis.Redis.from_url(server.url))
        time.sleep(4)
        assert consumer.is_alive
        _mend(server.url)
        _publish(server.url, 4)  # what it refused to give may be lost, and is published again by the sweep
        _until(lambda: taken.get(timeout=60) == 4)
        consumer.stop()
        _until(lambda: not consumer.is_alive)


def test_a_message_that_comes_while_it_stops_is_there_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        stored = redis.Redis.from_url(server.url)
        for shard_id in range(5):
            monkeypatch.setattr(state, "should_stop", None)  # Celery's, for the whole process
            consumer = CeleryConsumer(celery_app(server.url), [QUEUE], "leaver", lambda _: False)
            consumer.start()
            time.sleep(1)
            consumer.stop()
            _publish(server.url, shard_id)
            consumer.wait(5)
            assert not consumer.is_alive
            assert stored.llen(QUEUE) == 1, shard_id
            stored.delete(QUEUE)


def test_that_redis_is_away_and_back_is_logged_once_each(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, capture_logs() as logged:
        watch = RedisWatch(server.url)
        watch.look()
        assert watch.is_up
        server.stop()
        for _ in range(2):
            watch.look()
            assert not watch.is_up
        server.start()
        for _ in range(2):
            watch.look()
            assert watch.is_up
    assert [entry["event"] for entry in logged] == ["no_messages", "messages_again"]
