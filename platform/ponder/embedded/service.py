"""One of our own processes under the supervisor: started again when it dies, ever more patiently."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder.embedded.child import spawn, stop

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 60.0


@dataclass(slots=True)
class Service:
    """`arguments` are run with `environment`; output goes to `log`. It dies with the supervisor, even by kill -9."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    grace_s: float = 10.0
    num_restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _pause_s: float = _FIRST_PAUSE_S

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self) -> None:
        """From the thread that will live as long as the supervisor: the kernel ties the child to it."""
        self._started_at = time.monotonic()
        self.process = spawn(
            self.arguments,
            log=self.log,
            environment=self.environment,
            # A crash of the supervisor is a crash of the machine: leases and transactions are made for that.
            on_parent_death=signal.SIGKILL,
        )

    def mend(self) -> int | None:
        """Starts the process again if it has died and its pause is over; returns what it had ended with if it did."""
        assert self.process is not None
        code = self.process.poll()
        lived_s = time.monotonic() - self._started_at
        if code is None:
            if lived_s > _HEALTHY_AFTER_S:
                self._pause_s = _FIRST_PAUSE_S
            return None
        if lived_s < self._pause_s:
            return None
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        self.num_restarts += 1
        self.start()
        return code

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGTERM, timeout_s=self.grace_s)

    def last_words(self, num_lines: int = 5) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-num_lines:])
        except OSError:
            return ""
