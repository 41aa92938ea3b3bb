from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from ponder.embedded.redis import EmbeddedRedis
from ponder.errors import InvalidInput, Unreachable
from ponder.queue.celery_app import Message, celery_app, publish, queue_lengths, queue_name, redis_client, trouble


def test_a_message_holds_a_shard_id_and_nothing_else(redis_server: EmbeddedRedis) -> None:
    queue = f"ponder.test.{uuid.uuid4()}"
    app, client = celery_app(redis_server.url), redis_client(redis_server.url)

    publish(app, [Message(7, queue), Message(8, queue)])

    assert queue_lengths(client, [queue, "ponder.empty"]) == {queue: 2, "ponder.empty": 0}
    message = json.loads(client.rpop(queue))
    assert message["headers"]["task"] == "ponder.intake"
    assert message["content-type"] == "application/json"
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == ([], {"shard_id": 7})


def test_names_of_queues_are_readable_and_never_mix_weights_or_lanes() -> None:
    names = {
        queue_name(model, fingerprint, lane)
        for model in ("org/model v1", "org/model-v1", "日本語")
        for fingerprint in ("f1", "f2")
        for lane in ("interactive", "batch")
    }
    assert len(names) == 12
    assert all(name.isascii() and " " not in name for name in names)
    assert queue_name("org/model", "f1", "batch").startswith("ponder.org-model.")


def test_an_unreachable_redis_is_reported_as_such(tmp_path: object) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    with pytest.raises(Unreachable):
        publish(celery_app(url), [Message(1, "ponder.test")])
    with pytest.raises(Unreachable):
        queue_lengths(redis_client(url), ["ponder.test"])


@pytest.fixture
def one_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that a test may break."""
    with EmbeddedRedis(tmp_path) as server:
        yield server


def _fill(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def _demote(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", 1)


def _lock(client: redis.Redis) -> None:
    client.config_set("requirepass", "secret")


@pytest.mark.parametrize(
    ("spoil", "reply"), [(_fill, "OOM|maxmemory"), (_demote, "read only|READONLY"), (_lock, "uth")]
)
def test_a_server_that_answers_but_takes_no_message_refuses(
    one_redis: EmbeddedRedis, spoil: Callable[[redis.Redis], None], reply: str
) -> None:
    assert trouble(one_redis.url, timeout_s=2) is None
    assert redis.Redis.from_url(one_redis.url).dbsize() == 0
    spoil(redis.Redis.from_url(one_redis.url))
    with pytest.raises(Unreachable, match=f"Redis refuses: .*({reply})"):
        publish(celery_app(one_redis.url), [Message(1, "ponder.test")])
    said = trouble(one_redis.url, timeout_s=2)
    assert said is not None
    assert said.startswith("refuses: ")


@pytest.mark.parametrize("reply", ["-LOADING Redis is loading the dataset in memory", "-WRONGPASS invalid password"])
def test_a_server_that_is_not_ready_or_wants_another_password_refuses(reply: str) -> None:
    class Refusing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                self.request.sendall(reply.encode() + b"\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        url = f"redis://:sesame@127.0.0.1:{server.server_address[1]}"
        said = trouble(url, timeout_s=2)
        with pytest.raises(Unreachable, match="Redis refuses: ") as refusal:
            queue_lengths(redis_client(url), ["ponder.test"])
        server.shutdown()
    assert said is not None
    assert said.startswith("refuses: ")
    assert "sesame" not in said + str(refusal.value)


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("redis://:secret@host:6380/2", "redis://:secret@host:6380/2"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix://:secret@/run/redis.sock?db=3", "redis+socket://:secret@/run/redis.sock?virtual_host=3"),
    ],
)
def test_common_forms_of_urls_are_accepted(url: str, broker: str) -> None:
    assert celery_app(url).conf.broker_url == broker


def test_tls_verifies_unless_the_url_says_otherwise() -> None:
    assert celery_app("rediss://host").conf.broker_use_ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert not celery_app("rediss://host?ssl_cert_reqs=none").conf.broker_use_ssl


def test_another_kind_of_url_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="redis://"):
        celery_app("amqp://host")
