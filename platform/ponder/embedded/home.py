"""The folder PONDER_HOME: its files, and whether a stack runs there."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder.errors import Conflict, SetupError

_LOCK_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Home:
    """A home. Its lock tells whether a stack runs, not a process id, because the kernel frees a dead holder's lock."""

    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def key_file(self) -> Path:
        return self.path / "api_key"

    def log(self, service: str) -> Path:
        return self.path / f"{service}.log"

    def prepare(self) -> None:
        """Makes the folder. Raises SetupError if it cannot be written, or if others can write to it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self.path / f".probe-{os.getpid()}"
            probe.write_bytes(b"ponder")
            probe.unlink()
        except OSError as error:
            raise SetupError(
                f"{self.path} cannot be written ({error.strerror}): "
                "set PONDER_HOME to a folder of yours on a disk with room"
            ) from error
        found = self.path.stat()
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
            raise SetupError(
                f"{self.path} belongs to or can be written by others: set PONDER_HOME to a folder of yours"
            )

    def lock(self) -> int:
        """Takes the lock for the life of this process, and returns its open file. Raises Conflict if it is taken."""
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        give_up_at = time.monotonic() + _LOCK_WAIT_S  # another process may hold it briefly, as running_pid does
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            except BlockingIOError as error:
                if time.monotonic() > give_up_at:
                    os.close(descriptor)
                    raise Conflict(f"ponder is already up in {self.path}") from error
                time.sleep(0.05)

    def running_pid(self) -> int | None:
        """Returns the supervisor that holds the lock, or None if none runs, whatever files a dead one left."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            content = os.pread(descriptor, 20, 0)
            return int(content) if content.isdigit() else None
        else:
            return None
        finally:
            os.close(descriptor)

    def record(self) -> dict[str, Any] | None:
        """Returns the running supervisor's record of itself, or None if none runs or has written one yet."""
        pid = self.running_pid()
        try:
            record = json.loads(self.record_file.read_text())
        except (OSError, json.JSONDecodeError):
            return None
        return record if pid is not None and isinstance(record, dict) and record.get("pid") == pid else None

    def write_record(self, record: dict[str, Any]) -> None:
        self._write(self.record_file, json.dumps(record, indent=2))

    def recorded_url(self) -> str | None:
        record = self.record()
        return str(record["url"]) if record else None

    def key(self) -> str | None:
        try:
            return self.key_file.read_text().strip() or None
        except OSError:
            return None

    def write_key(self, key: str) -> None:
        self._write(self.key_file, key + "\n")

    def webhook_key(self) -> str:
        """Returns what the secrets of webhooks are made from. It is made the first time."""
        file = self.path / "webhook_key"
        if not file.exists():
            self._write(file, secrets.token_hex(32) + "\n")
        return file.read_text().strip()

    @property
    def _lock_file(self) -> Path:
        return self.path / "supervisor.lock"

    def _write(self, file: Path, content: str) -> None:
        """Writes a file completely or not at all, and readable only by this user."""
        draft = file.with_name(f"{file.name}.draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            output.write(content)
        draft.replace(file)
