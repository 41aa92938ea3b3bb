"""One service of the testbed: a process that is started again whenever it ends, as a supervisor would do it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from fault_injection.network import Link
from process_tree import children, command_of, is_alive

from ponder.embedded.child import spawn
from ponder.embedded.child import stop as stop_process


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
        """links: its ways to Postgres and Redis, by their names."""
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
        """Of a worker's engine process, if it runs."""
        return next((pid for pid in children(self.pid) if "multiprocessing.spawn" in command_of(pid)), None)

    def verifier_pids(self) -> list[int]:
        """Of the processes that judge a worker's answers, and of those that start them."""
        return [pid for pid in children(self.pid) if "verify.fork_server" in command_of(pid)]


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """To those that still live."""
    for pid in pids:
        if is_alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
