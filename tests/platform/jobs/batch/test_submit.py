from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ponder.errors import Conflict, LimitReached, NotFound


def test_a_batch_waits_for_its_validation(desk: Any) -> None:
    row = desk.row(desk.submit(desk.file(b"{}"), window="90m", priority="interactive"))
    assert (row.state, row.lane, row.num_lines) == ("validating", "interactive", 0)
    assert row.expires_at - row.created_at == pytest.approx(timedelta(minutes=90), abs=timedelta(seconds=1))


def test_the_dispatcher_is_woken(desk: Any, engine: Engine) -> None:
    file_id = desk.file(b"{}")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        listener.execute(text("LISTEN ponder"))
        desk.submit(file_id)
        driver: Any = listener.connection.driver_connection
        for _ in range(100):  # a notification comes with the answer to something else
            listener.execute(text("SELECT pg_sleep(0.01)"))
            if driver.notifications:
                break
        assert [channel for _, channel, _ in driver.notifications] == ["ponder"]


def test_a_file_of_another_tenant_does_not_exist(desk: Any) -> None:
    with pytest.raises(NotFound):
        desk.submit(desk.file(b"{}"), tenant="tenant_01")


def test_a_deleted_file_does_not_exist(desk: Any) -> None:
    file_id = desk.file(b"{}")
    desk.sql("UPDATE files SET deleted_at = now()")
    with pytest.raises(NotFound):
        desk.submit(file_id)


def test_a_network_retry_pays_once(desk: Any) -> None:
    file_id = desk.file(b"{}")
    first = desk.submit(file_id, key="k", budget={"tokens": 5})
    assert desk.submit(file_id, key="k", budget={"tokens": 5}) == first
    with pytest.raises(Conflict):
        desk.submit(file_id, key="k", budget={"tokens": 6})
    assert desk.submit(file_id, key="other", budget={"tokens": 5}) != first


def test_many_retries_at_once_make_one_batch(desk: Any) -> None:
    file_id = desk.file(b"{}")
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: desk.submit(file_id, key="k"), range(24)))
    assert len(made) == 1
    assert len(desk.sql("SELECT id FROM batches")) == 1


def test_a_tenant_with_as_many_open_batches_as_it_may_have_gets_another_when_one_has_ended(desk: Any) -> None:
    file_id = desk.file(b"{}")
    first, _ = (desk.submit(file_id, most_open=2) for _ in range(2))
    with pytest.raises(LimitReached, match="2 batches have not ended yet"):
        desk.submit(file_id, most_open=2)
    desk.sql("UPDATE batches SET state = 'completed' WHERE id = :id", id=first)
    desk.submit(file_id, most_open=2)
