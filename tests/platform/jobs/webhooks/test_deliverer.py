"""Deliveries to a real receiver: signed, tried again, and never held up by somebody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pydantic import SecretStr
from receiver import Receiver, receiving, status
from sqlalchemy import Engine

from ponder.jobs.webhooks import outbox
from ponder.jobs.webhooks.deliverer import keep_delivering
from ponder.jobs.webhooks.subscription import make_secret, set_url
from ponder.settings import Settings

SETTINGS = Settings(webhook_key=SecretStr("a key of the operator"), webhook_private=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@contextmanager
def delivering(engine: Engine, settings: Settings = SETTINGS) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=keep_delivering, args=(engine, settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def subscribe(world: Any, url: str | None, tenant: str | None = None) -> tuple[str, str]:
    """Returns a tenant with a webhook, and its secret."""
    tenant = tenant or world.tenant()
    with world.engine.begin() as connection:
        secret = set_url(connection, SETTINGS, tenant, url, os.urandom(32))
    assert secret is not None
    return tenant, secret


def complete(world: Any, tenant: str, num_batches: int = 1, **options: Any) -> list[str]:
    """Completes batches of a tenant. Returns their ids."""
    batches = [world.batch(1, tenant=tenant) for _ in range(num_batches)]
    world.sql("UPDATE batches SET options = CAST(:options AS jsonb)", options=json.dumps(options))
    world.sql("UPDATE jobs SET state = 'completed' WHERE tenant_id = :id", id=tenant)
    world.finish()
    return batches


def messages(world: Any) -> list[Any]:
    return list(world.sql("SELECT *, due_at > clock_timestamp() AS is_put_off FROM webhook_messages ORDER BY id"))


def until_empty(world: Any, seconds: float = 20.0) -> None:
    give_up_at = time.monotonic() + seconds
    while messages(world):
        assert time.monotonic() < give_up_at, "messages are left"
        time.sleep(0.05)


def make_due(world: Any) -> None:
    world.sql("UPDATE webhook_messages SET due_at = clock_timestamp()")


def test_a_completed_batch_is_announced_once_with_a_signature_of_the_tenants_secret(
    world: Any, receiver: Receiver
) -> None:
    tenant, secret = subscribe(world, receiver.url)
    (batch,) = complete(world, tenant)
    world.finish()
    with delivering(world.engine):
        (received,) = receiver.wait(1)
        until_empty(world)
    assert received.is_signed_with(secret)
    assert received.headers["Content-Type"] == "application/json"
    assert received.event["type"] == "batch.completed"
    data = received.event["data"]
    assert (data["id"], data["status"], data["metadata"]) == (batch, "completed", {})
    assert data["output_file_id"] is not None
    assert len(receiver.received) == 1
    assert world.sql("SELECT last_delivered_at FROM webhooks")[0].last_delivered_at is not None


def test_a_batch_with_a_url_of_its_own_is_announced_there(world: Any, receiver: Receiver) -> None:
    tenant, secret = subscribe(world, "https://example.com/never")
    complete(world, tenant, webhook=f"{receiver.url}?batch=1")
    with delivering(world.engine):
        (received,) = receiver.wait(1)
    assert received.path == "/hook?batch=1"
    assert received.is_signed_with(secret)


def test_for_a_day_messages_carry_the_signature_of_the_replaced_secret_too(world: Any, receiver: Receiver) -> None:
    tenant, before = subscribe(world, receiver.url)
    with world.engine.begin() as connection:
        after = make_secret(connection, SETTINGS, tenant, os.urandom(32))
    complete(world, tenant)
    with delivering(world.engine):
        (received,) = receiver.wait(1)
        until_empty(world)
        assert received.is_signed_with(before)
        assert received.is_signed_with(after)
        world.sql("UPDATE webhooks SET secret_made_at = secret_made_at - interval '1 day'")
        complete(world, tenant)
        last = receiver.wait(2)[-1]
    assert last.is_signed_with(after)
    assert not last.is_signed_with(before)


def test_errors_are_tried_again_later_and_later_with_the_same_id(world: Any, receiver: Receiver) -> None:
    tenant, secret = subscribe(world, receiver.url)
    complete(world, tenant)
    codes = iter((500, 429, 200))
    receiver.answer = lambda handler: status(handler, next(codes))
    delays = []
    with delivering(world.engine):
        for number in (1, 2):
            receiver.wait(number)
            _until(lambda number=number: _is_put_off(world, number))
            delays.append(world.sql("SELECT extract(epoch FROM due_at - clock_timestamp()) AS s FROM webhook_messages"))
            make_due(world)
        receiver.wait(3)
        until_empty(world)
    assert len({one.id for one in receiver.received}) == 1
    assert all(one.is_signed_with(secret) for one in receiver.received)
    first, second = (float(rows[0].s) for rows in delays)
    assert 2 < first <= 7.5
    assert 4.5 < second <= 15
    assert "answered 429" in world.sql("SELECT last_error FROM webhooks")[0].last_error


def _is_put_off(world: Any, num_attempts: int) -> bool:
    """Whether the attempt was recorded, which makes the message due earlier than its lease would."""
    (row,) = world.sql(
        "SELECT num_attempts, due_at < clock_timestamp() + interval '30 seconds' AS is_near,"
        " due_at > clock_timestamp() AS is_ahead FROM webhook_messages"
    )
    return bool(row.num_attempts == num_attempts and row.is_near and row.is_ahead)


def test_after_a_day_a_message_is_given_up(world: Any, receiver: Receiver) -> None:
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    receiver.answer = lambda handler: status(handler, 503)
    world.sql("UPDATE webhook_messages SET created_at = created_at - interval '1 day'")
    with delivering(world.engine):
        until_empty(world)
    assert "answered 503" in world.sql("SELECT last_error FROM webhooks")[0].last_error
    assert len(receiver.received) == 1


def test_a_receiver_that_is_gone_gets_no_further_attempt(world: Any, receiver: Receiver) -> None:
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    receiver.answer = lambda handler: status(handler, 410)
    with delivering(world.engine):
        until_empty(world)
    assert len(receiver.received) == 1


def test_a_redirect_is_not_followed(world: Any, receiver: Receiver) -> None:
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    with receiving() as elsewhere:
        receiver.answer = lambda handler: status(handler, 307, Location=elsewhere.url)
        with delivering(world.engine):
            receiver.wait(1)
            _until(lambda: _is_put_off(world, 1))
        assert elsewhere.received == []
    assert "answered 307, which is not followed" in world.sql("SELECT last_error FROM webhooks")[0].last_error


def _until(is_so: Any, seconds: float = 20.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_private_address_gets_nothing_unless_the_operator_allows_it(world: Any, receiver: Receiver) -> None:
    """The URL was set while the operator allowed it."""
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    complete(world, tenant, webhook=receiver.url.replace("http:", "https:").replace("127.0.0.1", "localhost"))
    with delivering(world.engine, SETTINGS.model_copy(update={"webhook_private": False})):
        _until(lambda: len([one for one in messages(world) if one.is_put_off and one.num_attempts == 1]) == 2)
        _until(lambda: world.sql("SELECT last_error FROM webhooks")[0].last_error)
    assert receiver.received == []


def test_slow_receivers_of_one_tenant_hold_up_nobody_elses(
    world: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        release.wait(60)

    with receiving() as slow:
        slow.answer = hang
        crowd, _ = subscribe(world, slow.url)
        complete(world, crowd, 40)
        tenant, _ = subscribe(world, receiver.url)
        with delivering(world.engine):
            slow.wait(2)
            began_at = time.monotonic()
            complete(world, tenant, 10)
            receiver.wait(10)
            assert time.monotonic() - began_at < 10
            assert len(slow.received) == 2, "two attempts of a tenant at a time"
            release.set()


def test_an_answer_that_never_ends_is_cut_off(world: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.jobs.webhooks.deliverer._TIMEOUT_S", 1.0)
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not stop.wait(0.1):
            handler.wfile.write(b"X: y\r\n")

    receiver.answer = drip
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    with delivering(world.engine):
        _until(lambda: _is_put_off(world, 1))
        stop.set()
    assert "no answer within 1 s" in world.sql("SELECT last_error FROM webhooks")[0].last_error


def test_an_endless_body_is_not_read(world: Any, receiver: Receiver) -> None:
    written = []

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        try:
            while True:
                written.append(handler.wfile.write(b"x" * 65_536))
        except OSError:
            pass

    receiver.answer = flood
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    with delivering(world.engine):
        until_empty(world)
    assert sum(written) < 50_000_000


def test_what_a_killed_dispatcher_had_taken_is_delivered_by_the_next(
    world: Any, receiver: Receiver, database_url: str
) -> None:
    tenant, secret = subscribe(world, receiver.url)
    complete(world, tenant)
    hold = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        hold.wait(30)

    receiver.answer = hang
    program = (
        "import sys, threading; from ponder.settings import Settings; from ponder.store.database import connect;"
        "from ponder.jobs.webhooks.deliverer import keep_delivering;"
        "keep_delivering(connect(sys.argv[1]), Settings(), threading.Event())"
    )
    environment = os.environ | {"PONDER_WEBHOOK_KEY": "a key of the operator", "PONDER_WEBHOOK_PRIVATE": "true"}
    process = subprocess.Popen([sys.executable, "-c", program, database_url], env=environment)
    try:
        receiver.wait(1, 60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hold.set()
    (message,) = messages(world)
    assert (message.num_attempts, message.is_put_off) == (1, True)
    make_due(world)  # as it is when its lease is over
    receiver.answer = lambda handler: status(handler, 200)
    with delivering(world.engine):
        until_empty(world)
    first, second = receiver.received
    assert first.id == second.id
    assert second.is_signed_with(secret)


def test_without_an_operators_key_nothing_is_delivered(world: Any) -> None:
    stop = threading.Event()
    keep_delivering(world.engine, Settings(webhook_key=None), stop)  # it returns at once


def test_a_message_waits_while_the_operators_key_is_another_one(world: Any, receiver: Receiver) -> None:
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    with delivering(world.engine, SETTINGS.model_copy(update={"webhook_key": SecretStr("another")})):
        _until(lambda: _is_put_off(world, 1))
    assert receiver.received == []
    assert "PONDER_WEBHOOK_KEY" in world.sql("SELECT last_error FROM webhooks")[0].last_error


def test_a_removed_url_gets_nothing_and_its_messages_end(world: Any, receiver: Receiver) -> None:
    tenant, _ = subscribe(world, receiver.url)
    complete(world, tenant)
    with world.engine.begin() as connection:
        set_url(connection, SETTINGS, tenant, None, b"")
    with delivering(world.engine):
        until_empty(world)
    assert receiver.received == []
    complete(world, tenant)
    assert messages(world) == []


def test_two_dispatchers_never_take_the_same_message(world: Any) -> None:
    tenant, _ = subscribe(world, "https://example.com/hook")
    complete(world, tenant, 3)

    def taken(connection: Any) -> set[str]:
        return {one.message_id for one in outbox.take(connection, most=2, most_of_one=2, running={})}

    with world.engine.begin() as first, world.engine.begin() as second:
        assert len(taken(first)) == 2
        assert taken(second) == set(), "it is not blocked, and looks again in a moment"
    with world.engine.begin() as third:
        assert len(taken(third)) == 1


def test_tenants_take_turns(world: Any) -> None:
    crowd, _ = subscribe(world, "https://example.com/crowd")
    complete(world, crowd, 5)
    alone, _ = subscribe(world, "https://example.com/alone")
    complete(world, alone)
    with world.engine.begin() as connection:
        taken = outbox.take(connection, most=2, most_of_one=9, running={})
    assert {one.tenant_id for one in taken} == {crowd, alone}
