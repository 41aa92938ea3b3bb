"""The services of the testbed: processes that are started again whenever they end, as a supervisor would do it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from fault_injection.network import Link, Network
from process_tree import children, command_of, is_alive

from ponder.embedded.child_process import spawn
from ponder.embedded.child_process import stop as stop_process
from ponder.embedded.plan import demo_weights
from ponder.embedded.socket_folder import socket_folder

LEASE_S = 4.0
TICK_S = 0.3
MODEL = "demo"


class Service:
    """Call `mend` from the thread that lives longest: the kernel ends the process with the *thread* that started it."""

    def __init__(
        self,
        name: str,
        arguments: Iterable[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        links: Mapping[str, Link],
    ) -> None:
        """A service behind links of its own. links: its ways to Postgres and Redis, by their names."""
        self.name = name
        self.links = links
        self.log = log
        self.num_starts = 0
        self._arguments = [sys.executable, "-m", "ponder.cli", *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def mend(self) -> None:
        """Starts it unless it runs."""
        if not self.is_up:
            self.num_starts += 1
            self._process = spawn(
                self._arguments, log=self.log, environment=self._environment, on_parent_death=signal.SIGKILL
            )

    def stop(self) -> None:
        if self._process is not None:
            stop_process(self._process, signal.SIGTERM, timeout_s=20)

    def family(self) -> list[int]:
        """It and all its descendants."""
        return [self.pid, *children(self.pid)]

    def engine_pid(self) -> int | None:
        """The id of a worker's engine process, if it runs."""
        return next((pid for pid in children(self.pid) if "multiprocessing.spawn" in command_of(pid)), None)

    def verifier_pids(self) -> list[int]:
        """The ids of the processes that judge a worker's answers, and of those that start them."""
        return [pid for pid in children(self.pid) if "verify.fork_server" in command_of(pid)]


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """To those that still live."""
    for pid in pids:
        if is_alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def make_fleet(folder: Path, network: Network, *, port: int, num_workers: int) -> list[Service]:
    """The API, a dispatcher and workers of the demo models, none of them started yet. Each has links of its own."""
    weights = demo_weights()
    assert weights is not None, "the worker's package is not installed"
    options = {"model": weights / "generator", "reward-model": weights / "reward", "name": MODEL}
    options |= {
        "machine": "cpu",
        "market": "spot",
        "device": "cpu",
        "threads": 1,
        "max-sequences": 16,
        "notices": "none",
    }
    worker = ["worker", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    parts = {"api": ["serve", "--port", str(port)], "dispatcher": ["dispatcher"]}
    parts |= {f"worker-{number}": worker for number in range(1, num_workers + 1)}
    return [_service(folder, network, name, arguments) for name, arguments in parts.items()]


def _service(folder: Path, network: Network, name: str, arguments: list[str]) -> Service:
    links = {
        "postgres": network.link(lambda: socket_folder(folder) / ".s.PGSQL.5432"),
        "redis": network.link(lambda: socket_folder(folder / "redis") / "redis.sock"),
    }
    postgres, redis = (f"127.0.0.1:{link.port}" for link in links.values())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PONDER_")} | {
        "PONDER_HOME": str(folder),
        "PONDER_DATABASE_URL": f"postgresql://postgres@{postgres}/ponder?application_name={name}",
        "PONDER_REDIS_URL": f"redis://{redis}/0",
        # Short, so that a fault does not take long.
        "PONDER_LEASE_S": str(LEASE_S),
        "PONDER_TICK_S": str(TICK_S),
        "PONDER_SHARD_TOKENS": "2000",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return Service(name, arguments, environment, folder / f"{name}.log", links=links)
