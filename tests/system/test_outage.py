"""Redis and Postgres vanish in the middle of a batch and come back."""

from __future__ import annotations

import pytest
import redis
from fleet import Fleet, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

SAMPLE = {"name": "direct"}


def _begin(fleet: Fleet, num_jobs: int) -> None:
    """A batch of many shards, some of them settled, some held and some published."""
    fleet.start_dispatcher()
    fleet.start_workers(1, "--max-sequences", "8")
    fleet.submit(num_jobs, max_tokens=200, strategy=SAMPLE)
    until(lambda: fleet.scalar("SELECT count(*) FROM results") > 0, 60)
    assert fleet.num_published() > 0, "too late to be a test"


def test_nothing_is_lost_when_redis_is_emptied_and_restarted(fleet: Fleet) -> None:
    _begin(fleet, 60)
    redis.Redis.from_url(fleet.redis.url).flushall()
    fleet.redis.stop()
    fleet.redis.start()
    assert fleet.num_published() > 0, "too late to be a test"
    until(lambda: fleet.num_pending() == 0, 90)
    fleet.check_settled_once(60)
    fleet.check_ledgers()


def test_nothing_is_lost_when_postgres_restarts(fleet: Fleet) -> None:
    _begin(fleet, 60)
    fleet.postgres.stop()
    fleet.postgres.start()
    assert fleet.num_published() > 0, "too late to be a test"
    until(lambda: fleet.num_pending() == 0, 90)
    fleet.check_settled_once(60)
    fleet.check_ledgers()
