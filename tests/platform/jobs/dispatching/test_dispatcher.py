from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs
from waiting import until

from ponder.embedded.redis import EmbeddedRedis
from ponder.jobs.dispatching import dispatcher
from ponder.jobs.dispatching.dispatcher_status import DispatcherStatus, dispatcher_status, record
from ponder.jobs.wake import wake
from ponder.queue.celery_app import queue_lengths, queue_name, redis_client
from ponder.settings import Settings
from ponder.trace import Tracer

_WIDE_SET = "[\x01-\U0010fffe]"
QUEUE = queue_name("demo", "f1", "batch")


@pytest.fixture
def start(database_url: str, redis_server: EmbeddedRedis) -> Iterator[Callable[..., threading.Event]]:
    """Starts a dispatcher with more settings; the event stops it."""
    running: list[tuple[threading.Event, threading.Thread]] = []
    redis_client(redis_server.url).flushall()

    def start(tracer: Tracer | None = None, **more: Any) -> threading.Event:
        stop = threading.Event()
        settings = Settings(shard_tokens=1_000, **more)
        thread = threading.Thread(target=dispatcher.run, args=(database_url, redis_server.url, settings, stop, tracer))
        thread.start()
        running.append((stop, thread))
        return stop

    yield start
    for stop, _ in running:
        stop.set()
    for _, thread in running:
        thread.join(20)
        assert not thread.is_alive()


def _length(redis_server: EmbeddedRedis) -> int:
    return queue_lengths(redis_client(redis_server.url), [QUEUE])[QUEUE]


def test_it_publishes_what_may_run_and_finishes_what_has_run(
    world: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event]
) -> None:
    batch = world.batch(15)
    worker = world.worker()
    start()
    until(lambda: _length(redis_server) == 2, 30)

    for row in world.sql("SELECT id FROM shards ORDER BY id"):
        jobs = [job.job_id for job in world.claim(row.id, worker).jobs]
        world.tick(worker, settled=[world.passed(job) for job in jobs])
    until(lambda: world.state(batch) == "completed", 30)


def test_it_counts_what_an_older_release_has_validated_and_cut(
    world: Any, start: Callable[[], threading.Event]
) -> None:
    """Beside a migrated database, a dispatcher that knows of no uncut tokens goes on until it is replaced."""
    validated, cut, pilot = world.batch(25), world.batch(25), world.batch(25)
    for _ in range(3):
        world.dispatch()
    world.sql("UPDATE portions SET cut_until = 10 WHERE batch_id = ANY(:ids)", ids=[cut, pilot])
    world.sql("UPDATE portions SET cut_until = 0 WHERE batch_id = :id", id=validated)
    world.sql("UPDATE portions SET uncut_tokens = CASE batch_id WHEN :id THEN 0 ELSE 2500 END", id=validated)
    world.sql(
        "INSERT INTO pilots (batch_id, job_ids, must_confirm)"
        " SELECT batch_id, array_agg(id), false FROM jobs WHERE batch_id = :id AND line > 20 GROUP BY batch_id",
        id=pilot,
    )
    world.sql("UPDATE batches SET paused_at = clock_timestamp()")
    start()
    until(
        lambda: (
            {row.batch_id: row.uncut_tokens for row in world.sql("SELECT batch_id, uncut_tokens FROM portions")}
            == {validated: 2_500, cut: 1_500, pilot: 1_000}
        ),
        10,
    )


def test_a_trace_that_cannot_be_told_holds_nothing_up(
    world: Any, start: Callable[..., threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = set()
    for name in ("trace_submission", "trace_loss"):

        def fail(*args: object, name: str = name) -> None:
            failed.add(name)
            raise KeyError("a trace")

        monkeypatch.setattr(dispatcher, name, fail)
    world.batch()
    worker = world.worker()
    world.claim_all(worker)
    world.lapse(worker)
    world.batch()
    world.worker()
    with capture_logs() as lines:
        start(cast("Tracer", object()))
        until(lambda: len(failed) == 2 and len(lines) >= 3, 30)
    events = [line["event"] for line in lines]
    assert events.count("trace_not_told") >= 2
    assert "step_failed" not in events


def test_it_prunes_what_has_expired(world: Any, start: Callable[[], threading.Event]) -> None:
    world.batch(2)
    worker = world.worker()
    world.tick(worker, settled=[world.passed(job) for job in world.claim_all(worker)])
    world.finish()
    world.sql("UPDATE batches SET output_expires_after_s = 60, completed_at = now() - interval '1 hour'")
    start()
    until(lambda: [row.request for row in world.sql("SELECT request FROM jobs")] == [{}, {}], 30)
    until(lambda: world.sql("SELECT 1 FROM batches WHERE pruned_at IS NOT NULL AND pruned_line IS NULL"), 30)


def test_the_next_one_takes_over_and_two_never_publish_twice(
    world: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event]
) -> None:
    first = start()
    start()
    world.batch(15)
    until(lambda: _length(redis_server) == 2, 30)
    first.set()
    world.batch(5, lane="interactive")
    interactive = queue_name("demo", "f1", "interactive")
    until(lambda: queue_lengths(redis_client(redis_server.url), [interactive])[interactive] == 1, 30)
    assert _length(redis_server) == 2


def test_it_survives_losing_its_connections(
    world: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event]
) -> None:
    start()
    world.batch(5)
    until(lambda: _length(redis_server) == 1, 30)
    world.sql("""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """)
    redis_client(redis_server.url).client_kill_filter(_type="normal", skipme=True)
    world.batch(5, lane="interactive")
    interactive = queue_name("demo", "f1", "interactive")
    until(lambda: queue_lengths(redis_client(redis_server.url), [interactive])[interactive] == 1, 30)


def test_messages_that_redis_forgot_are_published_again(
    world: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_REPUBLISH_AFTER_S", 0.5)
    world.batch(5)
    start()
    until(lambda: _length(redis_server) == 1, 30)
    redis_client(redis_server.url).flushall()
    until(lambda: _length(redis_server) == 1, 30)


def _status(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(dispatcher_status(connection))


def test_a_redis_that_refuses_a_message_is_reported_until_the_message_is_sent(
    world: Any, redis_server: EmbeddedRedis, engine: Engine, start: Callable[[], threading.Event]
) -> None:
    client = redis_client(redis_server.url)
    start()
    until(lambda: _status(engine) == "ok", 30)
    client.config_set("maxmemory", 1)
    try:
        world.batch(5)
        until(lambda: "publish: Unreachable: Redis refuses: " in _status(engine), 30)
        for _ in range(3):  # in later rounds there is nothing to dispatch, but the error persists
            time.sleep(1)
            assert "publish" in _status(engine)
        assert _length(redis_server) == 0
    finally:
        client.config_set("maxmemory", 0)
    until(lambda: _status(engine) == "ok", 30)
    assert _length(redis_server) == 1
    [row] = world.sql("SELECT error, error_at FROM dispatcher")
    assert "Redis refuses" in row.error, "the last error is remembered"


def test_a_module_that_publishing_lacks_is_reported(
    world: Any, engine: Engine, start: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'packaging'")

    monkeypatch.setattr(dispatcher, "publish", publish)
    world.batch(5)
    start()
    until(lambda: "publish: ModuleNotFoundError: No module named 'packaging'" in _status(engine), 30)


def test_the_failure_of_a_harmless_step_is_reported_and_the_status_stays_ok(
    world: Any, engine: Engine, start: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(dispatcher, "fold", fold)
    start()
    until(lambda: "fold: OSError: no room" in [row.error for row in world.sql("SELECT error FROM dispatcher")], 30)
    assert _status(engine) == "ok"


def test_it_goes_on_folding_costs_between_rounds_while_any_are_left_and_dispatches_meanwhile(
    world: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    folded: list[float] = []

    def fold_costs(*_: object) -> bool:
        time.sleep(0.1)
        folded.append(time.monotonic())
        return True

    monkeypatch.setattr(dispatcher, "fold_costs", fold_costs)
    monkeypatch.setattr(dispatcher, "_ROUND_S", 600.0)
    start()
    until(lambda: len(folded) > 10, 30)
    world.batch(5)
    with world.engine.begin() as connection:
        wake(connection)
    until(lambda: _length(redis_server) == 1, 30)
    num_folded = len(folded)
    until(lambda: len(folded) > num_folded, 30)


def test_the_status_is_that_of_the_active_dispatcher_and_then_of_its_successor(
    engine: Engine, world: Any, start: Callable[[], threading.Event]
) -> None:
    first = start()
    until(lambda: _status(engine) == "ok", 30)
    start()
    first.set()
    world.sql("UPDATE dispatcher SET seen_at = '2026-01-02 03:04:05Z'")
    assert _status(engine) == "not running: last seen 2026-01-02 03:04:05 UTC"
    until(lambda: _status(engine) == "ok", 30)


def test_failing_begins_with_the_first_error_and_ends_with_the_first_good_round(engine: Engine) -> None:
    def after(error: str | None) -> DispatcherStatus:
        with engine.begin() as connection:
            record(connection, error, holds_work_up=error is not None)
            return dispatcher_status(connection)

    first, second = after("one"), after("two")
    assert (first.error, second.error) == ("one", "two")
    assert first.failing_since == second.failing_since == first.error_at
    assert second.error_at is not None
    assert first.error_at is not None
    assert second.error_at > first.error_at
    mended = after(None)
    assert (mended.is_ok, mended.error, mended.error_at) == (True, "two", second.error_at)


def test_the_jobs_of_a_dead_worker_come_back(
    world: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event]
) -> None:
    world.batch(5)
    worker = world.worker()
    assert len(world.claim_all(worker)) == 5
    start()
    world.lapse(worker)
    until(lambda: _length(redis_server) == 1, 30)
    world.billed(worker)


def test_the_active_one_and_the_one_in_reserve_show_that_they_are_alive(
    start: Callable[..., threading.Event], tmp_path: Path
) -> None:
    files = [tmp_path / "active", tmp_path / "reserve"]
    for file in files:
        start(alive_file=file)
    until(lambda: all(file.exists() for file in files), 30)
    shown = [file.stat().st_mtime_ns for file in files]
    until(lambda: all(file.stat().st_mtime_ns > before for file, before in zip(files, shown, strict=True)), 30)


def test_one_without_a_database_does_not_show_that_it_is_alive(
    start: Callable[..., threading.Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[float] = []

    def refuse(*_: object) -> None:
        attempts.append(time.monotonic())
        raise OSError("no route to the database")

    monkeypatch.setattr(dispatcher, "_leadership", refuse)
    start(alive_file=tmp_path / "alive")
    until(lambda: len(attempts) > 2, 30)
    assert not (tmp_path / "alive").exists()


def test_costly_lines_of_one_tenant_do_not_make_others_wait(
    desk: Any, redis_server: EmbeddedRedis, start: Callable[[], threading.Event]
) -> None:
    costly = [
        desk.line(str(number), ponder={"verifier": {"name": "regex", "pattern": f"(?i){number}" + _WIDE_SET * 300}})
        for number in range(20)
    ]
    content = b"\n".join(json.dumps(line).encode() for line in costly)
    for _ in range(3):
        desk.submit(desk.file(content))
    start()
    until(lambda: desk.sql("SELECT count(*) AS num FROM pg_locks WHERE locktype = 'advisory'")[0].num >= 3, 30)
    content = json.dumps(desk.line("theirs")).encode()
    began = time.monotonic()
    theirs = desk.submit(desk.file(content, tenant="tenant_01"), tenant="tenant_01")
    until(lambda: desk.row(theirs).state == "in_progress", 30)
    assert time.monotonic() - began < 15
