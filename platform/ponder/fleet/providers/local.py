"""Worker processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ponder.embedded.child_process import spawn
from ponder.fleet.provider import Order, Pool, ProviderFailed

_PROGRAM = (sys.executable, "-m", "ponder.cli")
_GRACE_S = 8.0
"""A worker hands its work back within five seconds."""


class Local:
    """Runs `ponder worker` with `arguments`, and with the order's id as its name.

    Workers end with the autoscaler: by SIGTERM, so that they hand their work back, and whatever ends it. They are found
    by their command line, so that the next autoscaler sees those that are still leaving.
    """

    names_workers = False

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        machine: str,
        market: str,
        log: Path,
        environment: Mapping[str, str],
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self._command = [*program, "worker", *arguments, "--machine", machine, "--market", market]
        self._offer = (machine, market)
        self._log = log
        self._environment = environment
        self._children: list[subprocess.Popen[bytes]] = []

    def offers(self, machine: str, market: str) -> bool:
        return (machine, market) == self._offer

    def start(self, order: Order) -> None:
        """Starts the process from this thread, with which it ends."""
        if self._pids(order.id):
            return
        command = [*self._command, "--worker-name", order.id]
        try:
            self._children.append(spawn(command, log=self._log, environment=self._environment))
        except OSError as error:
            raise ProviderFailed(f"no process could be started: {error}", is_undone=True) from error

    def stop(self, order: Order) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(order.id, number)
            give_up_at = time.monotonic() + _GRACE_S
            while self._pids(order.id):
                if time.monotonic() > give_up_at:
                    break
                time.sleep(0.1)
            else:
                return
        raise ProviderFailed("its process cannot be killed")

    def workers(self, pool: Pool) -> frozenset[str]:
        self._children = [child for child in self._children if child.poll() is None]
        return frozenset(name for _, name in self._processes())

    def close(self) -> None:
        """Asks all of its processes to leave, and then waits for all of them."""
        for child in self._children:
            child.terminate()
        give_up_at = time.monotonic() + _GRACE_S
        for child in self._children:
            try:
                child.wait(max(0.0, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                with suppress(subprocess.TimeoutExpired):  # the kernel may not be able to end it
                    child.wait(_GRACE_S)

    def _pids(self, name: str) -> list[int]:
        self._children = [child for child in self._children if child.poll() is None]
        return [pid for pid, found in self._processes() if found == name]

    def _signal(self, name: str, number: signal.Signals) -> None:
        for pid in self._pids(name):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Yields the living workers of the same database, with their names. A dead one has no command line."""
        ours = _database(self._environment)
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "worker" not in words or "--worker-name" not in words[:-1]:
                    continue
                lines = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                environment = dict(line.split("=", 1) for line in lines if "=" in line)
                if _database(environment) == ours:
                    yield int(folder.name), words[words.index("--worker-name") + 1]


def _database(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    return environment.get("PONDER_DATABASE_URL"), environment.get("PONDER_HOME")
