"""Validations in processes: turns of tenants, cancelling, and processes that die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine
from waiting import until

from ponder.jobs.batch.cancel import cancel
from ponder.jobs.validation.validations import Unvalidated, Validations
from ponder.settings import Settings

_COSTLY = "[\x01-\U0010fffe]" * 300


@pytest.fixture
def validations(engine: Engine, database_url: str) -> Iterator[Validations]:
    validations = Validations(engine, database_url, Settings(max_check_s=20))
    yield validations
    validations.close()


def _submit(desk: Any, tenant: str, *, is_costly: bool) -> str:
    pattern = "(?i)" + (_COSTLY if is_costly else "a")
    line = desk.line("a", ponder={"verifier": {"name": "regex", "pattern": pattern}})
    return desk.submit(desk.file(json.dumps(line).encode(), tenant=tenant), tenant=tenant)


def _until(validations: Validations, condition: Callable[[], bool]) -> None:
    def is_so_after_a_turn() -> bool:
        with contextlib.suppress(Unvalidated):
            validations.turn()
        return condition()

    until(is_so_after_a_turn, 60)


def _until_it_raises(validations: Validations) -> None:
    until(validations.turn, 60)


def test_one_tenant_has_half_of_the_processes_and_another_gets_in(desk: Any, validations: Validations) -> None:
    theirs = [_submit(desk, "tenant_00", is_costly=True) for _ in range(4)]
    validations.turn()
    assert list(validations.running) == theirs[:2]
    mine = _submit(desk, "tenant_01", is_costly=False)
    validations.turn()
    assert list(validations.running) == [*theirs[:2], mine]
    _until(validations, lambda: desk.row(mine).state == "in_progress")
    assert set(theirs[:2]) <= set(validations.running)


def test_the_validation_of_a_cancelled_batch_ends_at_once_and_makes_room(
    desk: Any, engine: Engine, validations: Validations
) -> None:
    batches = [_submit(desk, "tenant_00", is_costly=True) for _ in range(3)]
    validations.turn()
    with engine.begin() as connection:
        cancel(connection, "tenant_00", batches[0])
    pid = validations.running[batches[0]]
    began = time.monotonic()
    validations.turn()
    assert time.monotonic() - began < 1
    assert list(validations.running) == batches[1:]
    assert not os.path.exists(f"/proc/{pid}")
    assert desk.row(batches[0]).state == "cancelling"


def test_a_batch_whose_process_was_killed_is_validated_by_the_next_one(desk: Any, validations: Validations) -> None:
    _submit(desk, "tenant_00", is_costly=True)
    validations.turn()
    [(batch, pid)] = validations.running.items()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unvalidated, match=f"{batch}: its process died"):
        _until_it_raises(validations)
    _until(validations, lambda: validations.running.get(batch) not in (None, pid))


def test_the_reason_why_a_validation_broke_off_is_raised_until_the_batch_is_gone(
    desk: Any, validations: Validations
) -> None:
    batch = _submit(desk, "tenant_00", is_costly=False)
    desk.sql('UPDATE batches SET options = \'{"strategy": "unknown"}\' WHERE id = :id', id=batch)
    with pytest.raises(Unvalidated, match=f"{batch}: ValidationError"):
        _until_it_raises(validations)
    desk.sql("UPDATE batches SET state = 'cancelled' WHERE id = :id", id=batch)
    validations.turn()


def test_closing_leaves_no_process_and_the_batch_to_the_next_dispatcher(desk: Any, validations: Validations) -> None:
    batch = _submit(desk, "tenant_00", is_costly=True)
    validations.turn()
    pids = list(validations.running.values())
    validations.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert desk.row(batch).state == "validating"
