"""A process of our own under the supervisor, restarted when it dies after ever longer pauses."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder.embedded.child_process import spawn, stop

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 60.0


@dataclass(slots=True)
class Service:
    """A process that runs `arguments` with `environment` and writes to `log`. It dies with the supervisor."""

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
        """Starts the process. Call it from a thread that lives as long as the supervisor, to which it is tied."""
        self._started_at = time.monotonic()
        self.process = spawn(
            self.arguments,
            log=self.log,
            environment=self.environment,
            # A crash of the supervisor counts as a crash of the machine, which leases and transactions survive.
            on_parent_death=signal.SIGKILL,
        )

    def mend(self) -> int | None:
        """Restarts the process if it has died and its pause is over, and then returns its exit code."""
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
        """Returns the error that ended the service, or the end of its log if it has none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-num_lines:]
        except OSError:
            return ""
        told = [error for error in map(_told_error, lines) if error is not None]
        return told[-1] if told else "\n".join(lines)


def _told_error(line: str) -> str | None:
    """Returns the error in a last log line, which is plain text only if the settings could not be read."""
    if line.startswith("error: "):
        return line.removeprefix("error: ")
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return str(fields["error"]) if isinstance(fields, dict) and fields.get("event") == "ended" else None
