"""The Celery app and its only message: {"shard_id": id}."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from ponder.errors import InvalidInput, Unreachable

TASK = "ponder.intake"
_TIMEOUT_S = 5
_REFUSALS = (
    redis.exceptions.ResponseError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.BusyLoadingError,
)


@dataclass(frozen=True, slots=True)
class Message:
    """A wake-up: any consumer of this queue may claim this shard."""

    shard_id: int
    queue: str


def queue_name(model: str, fingerprint: str, lane: str) -> str:
    """Returns the name of the queue for a model's weights and a lane. The model's name may have any characters."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", model).strip("-")[:40]
    identity = hashlib.sha256(f"{model}\0{fingerprint}".encode()).hexdigest()[:12]
    return f"ponder.{readable}.{identity}.{lane}"


def celery_app(redis_url: str) -> Celery:
    """Makes the app: early ack, JSON only, no result backend, one message at a time, queues in order of consumption."""
    app = Celery("ponder", broker=_broker_url(redis_url), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        # Postgres knows what was claimed, so redelivery by Redis would only repeat running work.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "queue_order_strategy": "priority",
            "socket_timeout": _TIMEOUT_S,
            "socket_connect_timeout": _TIMEOUT_S,
            "retry_on_timeout": False,
        },
        task_publish_retry=False,
    )
    if redis_url.startswith("rediss://") and "ssl_cert_reqs" not in redis_url:
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return app


def publish(app: Celery, messages: Iterable[Message]) -> None:
    """Publishes messages. Raises Unreachable if Redis does not accept them; the dispatcher tries again later."""
    try:
        with app.producer_or_acquire() as producer:
            for message in messages:
                app.send_task(TASK, kwargs={"shard_id": message.shard_id}, queue=message.queue, producer=producer)
    except (OperationalError, redis.exceptions.RedisError, OSError) as error:
        raise Unreachable(f"Redis {_trouble(error)}") from error


def queue_lengths(client: redis.Redis, queues: Iterable[str]) -> dict[str, int]:
    """Returns how many messages wait in each queue. Raises Unreachable."""
    names = list(queues)
    try:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.llen(name)
        lengths: list[Any] = pipeline.execute()
    except (redis.exceptions.RedisError, OSError) as error:
        raise Unreachable(f"Redis {_trouble(error)}") from error
    return dict(zip(names, lengths, strict=True))


def trouble(redis_url: str, *, timeout_s: float) -> str | None:
    """Returns why Redis does not accept messages now, or None if it does. Leaves nothing behind in Redis."""
    client = redis.Redis.from_url(redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    try:
        return _refusal(client)
    finally:
        client.close()


def check_redis(client: redis.Redis) -> None:
    """Raises Unreachable unless Redis accepts messages now."""
    if (said := _refusal(client)) is not None:
        raise Unreachable(f"Redis {said}")


def _refusal(client: redis.Redis) -> str | None:
    try:
        # Unlike PING, a write is refused by a full server and by a replica. Without a list this write does nothing.
        client.lpushx("ponder.probe", "")
    except (redis.exceptions.RedisError, OSError) as error:
        return _trouble(error)
    return None


def _trouble(error: Exception) -> str:
    """Describes an error. A server that refuses (full, loading, a replica, a wrong password) needs another remedy than
    one that does not answer.
    """
    cause = error.__cause__ if isinstance(error, OperationalError) and error.__cause__ is not None else error
    return f"{'refuses' if isinstance(cause, _REFUSALS) else 'does not answer'}: {cause}"


def redis_client(redis_url: str) -> redis.Redis:
    """Makes a client for a redis://, rediss:// or unix:// URL. Opens no connection yet."""
    _check(redis_url)
    return redis.Redis.from_url(redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)


def _broker_url(redis_url: str) -> str:
    """Returns Celery's form of a URL: a Unix socket is redis+socket://path?virtual_host=db."""
    _check(redis_url)
    if not redis_url.startswith("unix://"):
        return redis_url
    parts = urlsplit(redis_url)
    query = dict(parse_qsl(parts.query))
    query["virtual_host"] = query.pop("db", "0")
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{login}{parts.path}?{urlencode(query)}"


def _check(redis_url: str) -> None:
    if not redis_url.startswith(("redis://", "rediss://", "unix://")):
        raise InvalidInput("a Redis URL must begin with redis://, rediss:// or unix://", param="PONDER_REDIS_URL")
