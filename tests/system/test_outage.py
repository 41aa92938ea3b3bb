"""Redis and Postgres vanish in the middle of a batch and come back."""

from __future__ import annotations

import signal
import time

import pytest
import redis
from fleet import LEASE_S, Fleet, until
from sqlalchemy import text

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

SAMPLE = {"name": "direct"}


def _wait_for_the_middle(fleet: Fleet) -> None:
    """More results than before, and shards of which a message tells."""
    num_results = fleet.scalar("SELECT count(*) FROM results")
    until(lambda: fleet.scalar("SELECT count(*) FROM results") > num_results, 60)
    assert fleet.num_published() > 0, "too late to be a test"


def test_nothing_is_lost_when_redis_is_emptied_and_restarted_and_postgres_restarts(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    fleet.start_workers(1, "--max-sequences", "8")
    fleet.submit(80, max_tokens=200, strategy=SAMPLE)
    _wait_for_the_middle(fleet)
    redis.Redis.from_url(fleet.redis.url).flushall()
    fleet.redis.stop()
    fleet.redis.start()
    _wait_for_the_middle(fleet)
    fleet.postgres.stop()
    fleet.postgres.start()
    assert fleet.num_published() > 0, "too late to be a test"
    until(lambda: fleet.num_pending() == 0, 120)
    fleet.check_settled_once(80)
    fleet.check_ledgers()


def test_a_worker_that_is_told_to_go_while_postgres_is_away_goes_in_time_and_its_jobs_are_not_lost(
    fleet: Fleet,
) -> None:
    fleet.start_dispatcher()
    (worker,) = fleet.start_workers(1)
    fleet.submit(1, max_tokens=300)
    until(lambda: fleet.num_saved_tokens() > 0, 30)
    fleet.postgres.stop()
    told_at = time.monotonic()
    worker.terminate()
    assert worker.wait(10) != 0, "nobody confirmed that anything was handed back"
    print(f"SIGTERM to exit without Postgres: {time.monotonic() - told_at:.2f} s")
    fleet.postgres.start()
    fleet.start_worker()
    until(lambda: fleet.scalar("SELECT count(*) FROM results") == 1, 60)
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["preempted", "settled"], "its lease ran out in the grace after the outage"
    fleet.check_ledgers()


def test_workers_survive_an_outage_of_postgres_longer_than_their_lease(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    workers = fleet.start_workers(2)
    fleet.submit(6, max_tokens=300)
    until(lambda: fleet.num_saved_tokens() > 0, 30)
    fleet.postgres.stop()
    time.sleep(1.5 * LEASE_S)
    fleet.postgres.start()
    until(lambda: fleet.num_pending() == 0, 120)
    assert [worker.poll() for worker in workers] == [None, None], "neither had done anything wrong"
    fleet.check_settled_once(6)
    assert set(fleet.outcomes()) == {"settled"}
    fleet.check_ledgers()


def test_a_worker_that_is_frozen_inside_a_transaction_does_not_keep_its_jobs(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    (frozen,) = fleet.start_workers(1)
    fleet.submit(1, max_tokens=300)
    until(lambda: fleet.num_saved_tokens() > 0, 30)
    # A tick waits for the job; then it is frozen; then it gets what it waited for.
    with fleet.engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
        until(lambda: fleet.scalar("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), 10)
        frozen.send_signal(signal.SIGSTOP)
    frozen_at = time.monotonic()
    fleet.start_worker()
    until(lambda: fleet.outcomes()[0] is not None, 3 * LEASE_S)
    print(f"frozen inside a transaction to handed on: {time.monotonic() - frozen_at:.1f} s, a lease is {LEASE_S:g} s")
    until(lambda: fleet.num_pending() == 0, 60)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(20) != 0, "its next write is refused"
    fleet.check_settled_once(1)
    assert fleet.outcomes() == ["lost", "settled"]
    fleet.check_ledgers()


def test_a_redis_that_is_full_ends_no_worker_and_the_reason_is_told(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    (worker,) = fleet.start_workers(1, "--max-sequences", "8")
    fleet.submit(120, max_tokens=300, strategy=SAMPLE)
    _wait_for_the_middle(fleet)
    client = redis.Redis.from_url(fleet.redis.url)
    client.config_set("maxmemory", 1)
    try:
        until(lambda: "Redis refuses" in (fleet.scalar("SELECT error FROM dispatcher") or ""), 20)
        until(lambda: "no_messages" in fleet.log_of(worker), 20)
        assert fleet.scalar("SELECT failing_since FROM dispatcher") is not None
        time.sleep(2)
        assert worker.poll() is None
    finally:
        client.config_set("maxmemory", 0)
    until(lambda: fleet.num_pending() == 0, 120)
    assert worker.poll() is None
    fleet.check_settled_once(120)
    assert set(fleet.outcomes()) == {"settled"}
    until(lambda: fleet.scalar("SELECT failing_since FROM dispatcher") is None, 20)


def test_a_worker_that_has_loaded_while_postgres_is_away_does_not_load_again(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker()
    until(lambda: "engine_started" in fleet.log_of(worker), 60)
    fleet.postgres.stop()
    until(lambda: "ready_waits_for_postgres" in fleet.log_of(worker), 60)
    time.sleep(LEASE_S)
    fleet.postgres.start()
    until(lambda: fleet.scalar("SELECT count(*) FROM incarnations WHERE state = 'ready'"), 90)
    fleet.submit(1, max_tokens=50, strategy=SAMPLE)
    until(lambda: fleet.scalar("SELECT count(*) FROM results") == 1, 60)
    assert worker.poll() is None
    assert fleet.scalar("SELECT count(*) FROM incarnations") == 1
    fleet.check_settled_once(1)
    fleet.check_ledgers()
