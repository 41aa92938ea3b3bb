"""Faults of Postgres, Redis, the API and the dispatcher, and of the connections and messages between them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import httpx2
import redis
from fault_injection.fault import Disturbance, Kind, Scene, next_settled
from fault_injection.service import LEASE_S, send
from fault_injection.testbed import Testbed
from process_tree import children

from ponder.queue.celery_app import Message, celery_app, publish, queue_name

SHORT, LONG = (0.1, 0.5), (1.2, 2.0)
"""Outages, in leases."""


def _api_killed(scene: Scene) -> Disturbance:
    """Over when it takes requests again."""
    send(signal.SIGKILL, scene.worker.family())

    def is_over() -> bool:
        try:
            return httpx2.get(scene.testbed.ready_url, timeout=2, trust_env=False).is_success
        except httpx2.TransportError:
            return False

    return Disturbance(is_over)


def _dispatcher_killed(scene: Scene) -> Disturbance:
    is_over = _dispatches(scene.testbed)
    send(signal.SIGKILL, [scene.worker.pid])
    return Disturbance(is_over)


def _dispatcher_frozen(scene: Scene) -> Disturbance:
    """Longer than a lease: nobody sweeps, and it looks like an outage."""
    is_over, pids = _dispatches(scene.testbed), scene.worker.family()
    send(signal.SIGSTOP, pids)
    return Disturbance(is_over, scene.rng.uniform(*LONG) * LEASE_S, lambda: send(signal.SIGCONT, pids))


def _store_killed(name: str, scene: Scene) -> Disturbance:
    is_over = next_settled(scene.testbed)
    send(signal.SIGKILL, [_pid(scene.testbed, name)])
    return Disturbance(is_over)


def _store_out(name: str, leases: tuple[float, float], scene: Scene) -> Disturbance:
    """Shut down in good order, and away for so many leases."""
    testbed, is_over, pid = scene.testbed, next_settled(scene.testbed), _pid(scene.testbed, name)
    testbed.held_down.add(name)
    send(signal.SIGINT if name == "postgres" else signal.SIGTERM, [pid])

    def heal() -> None:
        send(signal.SIGKILL, [pid])  # Postgres never ends when it is told to in the middle of a recovery
        testbed.held_down.discard(name)

    return Disturbance(is_over, scene.rng.uniform(*leases) * LEASE_S, heal)


def _store_frozen(name: str, scene: Scene) -> Disturbance:
    """It keeps every connection and answers none, for longer than a lease."""
    is_over, pid = next_settled(scene.testbed), _pid(scene.testbed, name)
    pids = [pid, *children(pid)]
    send(signal.SIGSTOP, pids)
    return Disturbance(is_over, scene.rng.uniform(*LONG) * LEASE_S, lambda: send(signal.SIGCONT, pids))


def _backend_killed(scene: Scene) -> Disturbance:
    """By which Postgres ends all connections and recovers from its log."""
    is_over = next_settled(scene.testbed)
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^(worker|api|dispatcher)' ORDER BY pid"
    if pids := [row.pid for row in scene.testbed.rows(ours)]:
        send(signal.SIGKILL, [scene.rng.choice(pids)])
    return Disturbance(is_over)


def _backends_terminated(scene: Scene) -> Disturbance:
    is_over = next_settled(scene.testbed)
    scene.testbed.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^(worker|api|dispatcher)'"
    )
    return Disturbance(is_over)


def _clients_killed(scene: Scene) -> Disturbance:
    """Redis closes every connection but ours."""
    is_over = next_settled(scene.testbed)
    with _redis(scene.testbed) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return Disturbance(is_over)


def _connections_reset(name: str, scene: Scene) -> Disturbance:
    is_over = next_settled(scene.testbed)
    for service in scene.testbed.services.values():
        service.links[name].reset()
    return Disturbance(is_over)


def _redis_full(scene: Scene) -> Disturbance:
    def limit(num_bytes: int) -> None:
        with _redis(scene.testbed) as client:
            client.config_set("maxmemory", num_bytes)

    is_over = next_settled(scene.testbed)
    limit(1)
    return Disturbance(is_over, scene.rng.uniform(*LONG) * LEASE_S, partial(limit, 0))


def _messages_duplicated(scene: Scene) -> Disturbance:
    """Everything in the queues once more, and what was claimed or finished long ago."""
    testbed, is_over = scene.testbed, next_settled(scene.testbed)
    shards = "SELECT id, model, fingerprint, lane FROM shards WHERE published_at IS NOT NULL ORDER BY id DESC LIMIT 50"
    messages = [Message(row.id, queue_name(row.model, row.fingerprint, row.lane)) for row in testbed.rows(shards)]
    app = celery_app(testbed.redis.url)
    publish(app, scene.rng.sample(messages, min(20, len(messages))))
    app.close()
    with _redis(testbed) as client:
        for queue in _queues(client):
            if copies := client.lrange(queue, 0, -1):
                client.rpush(queue, *copies)
    return Disturbance(is_over)


def _messages_lost(scene: Scene) -> Disturbance:
    """Over when the shards that they told of have been claimed all the same."""
    testbed = scene.testbed
    told = "SELECT id FROM shards WHERE state = 'queued' AND published_at IS NOT NULL"
    shards = [row.id for row in testbed.rows(told)]
    with _redis(testbed) as client:
        if scene.rng.random() < 0.5:
            client.flushall()
        elif queues := _queues(client):
            client.delete(*queues)
    if not shards:
        return Disturbance(next_settled(testbed))
    queued = "SELECT count(*) FROM shards WHERE id = ANY(:ids) AND state = 'queued'"
    return Disturbance(lambda: testbed.scalar(queued, ids=shards) == 0)


SERVICE_FAULTS = (
    Kind("api_killed", "api", _api_killed),
    Kind("dispatcher_killed", "dispatcher", _dispatcher_killed),
    Kind("dispatcher_frozen", "dispatcher", _dispatcher_frozen),
    Kind("postgres_killed", "postgres", partial(_store_killed, "postgres")),
    Kind("postgres_backend_killed", "postgres", _backend_killed),
    Kind("postgres_out_briefly", "postgres", partial(_store_out, "postgres", SHORT)),
    Kind("postgres_out_long", "postgres", partial(_store_out, "postgres", LONG)),
    Kind("postgres_frozen", "postgres", partial(_store_frozen, "postgres")),
    Kind("postgres_backends_terminated", "postgres", _backends_terminated),
    Kind("postgres_connections_reset", "postgres", partial(_connections_reset, "postgres")),
    Kind("redis_killed", "redis", partial(_store_killed, "redis")),
    Kind("redis_out_briefly", "redis", partial(_store_out, "redis", SHORT)),
    Kind("redis_out_long", "redis", partial(_store_out, "redis", LONG)),
    Kind("redis_frozen", "redis", partial(_store_frozen, "redis")),
    Kind("redis_full", "redis", _redis_full),
    Kind("redis_clients_killed", "redis", _clients_killed),
    Kind("redis_connections_reset", "redis", partial(_connections_reset, "redis")),
    Kind("messages_duplicated", "redis", _messages_duplicated),
    Kind("messages_lost", "redis", _messages_lost),
)


def _dispatches(testbed: Testbed) -> Callable[[], bool]:
    """Whether a dispatcher has done a round after this call, by Postgres's clock."""
    seen, before = "SELECT max(seen_at) FROM dispatcher", testbed.scalar("SELECT clock_timestamp()")
    return lambda: testbed.scalar(seen) > before


def _pid(testbed: Testbed, name: str) -> int:
    store = testbed.postgres if name == "postgres" else testbed.redis
    assert store.process is not None
    return store.process.pid


def _redis(testbed: Testbed) -> redis.Redis:
    return redis.Redis.from_url(testbed.redis.url, socket_timeout=5)


def _queues(client: redis.Redis) -> list[bytes | str]:
    """The lists that hold messages; Celery keeps bindings beside them."""
    return [key for key in client.keys("ponder.*") if client.type(key) == b"list"]
