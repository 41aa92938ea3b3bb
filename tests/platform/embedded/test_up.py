"""The whole stack but the worker, with real processes, through the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from waiting import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Machine:
    home: Path
    port: int

    def ponder(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
        environment |= {"PONDER_HOME": str(self.home), "PONDER_PORT": str(self.port)}
        program = [sys.executable, "-m", "ponder.cli", *arguments]
        return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120, check=False)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.ponder("status", "--format", "json").stdout))

    def pids(self) -> dict[str, int]:
        return {service["name"]: service["pid"] for service in self.status()["services"]}


@pytest.fixture
def machine(home: Path) -> Iterator[Machine]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Machine(home, probe.getsockname()[1])
    yield made
    made.ponder("down")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_up_down_and_all_that_a_stranger_may_do_in_between(machine: Machine) -> None:
    up = machine.ponder("up", "--workers", "0")
    assert up.returncode == 0, up.stderr
    assert f"ponder is up: http://127.0.0.1:{machine.port}" in up.stderr

    again = machine.ponder("up", "--workers", "0")
    assert (again.returncode, "already up" in again.stderr) == (0, True)
    assert set(machine.pids()) == {"postgres", "redis", "serve", "dispatcher"}
    assert machine.ponder("batches").returncode == 0
    assert f"export OPENAI_BASE_URL=http://127.0.0.1:{machine.port}/v1" in machine.ponder("env").stdout

    pids = [machine.status()["pid"], *machine.pids().values()]
    assert machine.ponder("down").returncode == 0
    assert not any(map(is_alive, pids))
    assert machine.ponder("status").returncode == 1
    assert "nothing was up" in machine.ponder("down").stderr


def test_no_child_outlives_a_killed_supervisor_and_the_next_one_starts(machine: Machine) -> None:
    assert machine.ponder("up", "--workers", "0").returncode == 0
    key = machine.ponder("env").stdout
    pids = machine.pids()
    os.kill(machine.status()["pid"], signal.SIGKILL)
    until(lambda: not any(map(is_alive, pids.values())), 60)
    assert machine.status() == {"is_up": False}
    up = machine.ponder("up", "--workers", "0")
    assert up.returncode == 0, up.stderr
    assert machine.ponder("env").stdout == key


def test_a_dead_child_is_started_again(machine: Machine) -> None:
    assert machine.ponder("up", "--workers", "0").returncode == 0
    before = machine.pids()
    for name in ("serve", "redis"):
        os.kill(before[name], signal.SIGKILL)
    until(lambda: machine.pids()["serve"] not in (None, before["serve"]), 60)
    until(lambda: machine.ponder("batches").returncode == 0, 60)
    until(lambda: machine.pids()["redis"] not in (None, before["redis"]), 60)
    assert is_alive(machine.pids()["postgres"])


def test_a_port_in_use_is_one_message_with_the_remedy_and_nothing_stays(machine: Machine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", machine.port))
        taken.listen()
        up = machine.ponder("up", "--workers", "0")
    assert up.returncode == 1
    assert f"port {machine.port} is in use" in up.stderr
    assert f"PONDER_PORT={machine.port + 1}" in up.stderr
    assert "Traceback" not in up.stderr
    assert machine.status() == {"is_up": False}


def test_a_model_that_cannot_be_loaded_is_reported_before_anything_starts(machine: Machine, tmp_path: Path) -> None:
    up = machine.ponder("up", "--model", str(tmp_path))
    assert (up.returncode, "there is no config.json in" in up.stderr) == (1, True)
