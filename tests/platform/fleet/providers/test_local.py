from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until

from ponder.fleet.provider import Order, Pool
from ponder.fleet.providers import local as module
from ponder.fleet.providers.local import Local

POOL = Pool("demo", "cpu", "on_demand")
STUBBORN = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
NAME = "fleet-1"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Local]]:
    made: list[Local] = []

    def make(home: str = "home", program: str = "import time; time.sleep(600)") -> Local:
        environment = os.environ | {"PONDER_HOME": str(tmp_path / home)}
        log = tmp_path / f"{home}.log"
        command = [sys.executable, "-c", program]
        made.append(Local([], machine="cpu", market="on_demand", log=log, environment=environment, program=command))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


def order(name: str = NAME) -> Order:
    return Order(name, POOL, 1, name)


def test_the_next_autoscaler_sees_the_worker_and_another_stack_on_this_machine_does_not(
    make: Callable[..., Local],
) -> None:
    make().start(order())
    following, elsewhere = make(), make("elsewhere")
    until(lambda: following.workers(POOL) == {NAME}, 30)
    following.start(order())
    elsewhere.start(order("fleet-2"))
    until(lambda: elsewhere.workers(POOL) == {"fleet-2"}, 30)
    assert len(following._pids(NAME)) == 1
    elsewhere.stop(order())
    assert following.workers(POOL) == {NAME}


def test_a_worker_that_was_killed_is_gone_at_once(make: Callable[..., Local]) -> None:
    provider = make()
    provider.start(order())
    (pid,) = until(lambda: provider._pids(NAME), 30)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not provider.workers(POOL), 30)


def test_a_worker_that_does_not_leave_is_killed(
    make: Callable[..., Local], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.3)
    provider = make(program=STUBBORN)
    provider.start(order())
    until(lambda: "up" in (tmp_path / "home.log").read_text(), 30)
    provider.stop(order())
    assert not provider.workers(POOL)


def test_closing_ends_even_if_a_worker_cannot_be_killed(
    make: Callable[..., Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Immortal:
        """A process that is stuck in the kernel, as after a failure of a GPU or a disk."""

        def terminate(self) -> None: ...

        def kill(self) -> None: ...

        def wait(self, timeout: float | None = None) -> None:
            assert timeout is not None, "it would be waited for as long as it lives"
            raise subprocess.TimeoutExpired("worker", timeout)

        def poll(self) -> None: ...

    provider = make()
    monkeypatch.setattr(provider, "_children", [Immortal()])
    provider.close()
