"""A process that has imported what others need, and is forked for each of them: a new one costs milliseconds.

`multiprocessing` has the same under the same name, once for a whole program; here each server has its own imports.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe, reduction
from multiprocessing.connection import Connection
from typing import NoReturn

from ponder_worker.parent_death import die_with_parent

_PROGRAM = "from ponder_worker.verify.sandbox.fork_server import main; main(*__import__('sys').argv[1:])"


class ForkServer:
    """Starts when it is first asked for a process, and anew after somebody killed it. May be called from any thread.

    Its processes end with it, and it ends with the process that made it.
    """

    def __init__(self, target: Callable[[Connection], None], *imports: str, start_s: float = 60.0) -> None:
        """target: what a forked process runs, with its end of a pipe; found by its name. start_s: for the imports."""
        self._arguments = (f"{target.__module__}:{target.__qualname__}", *imports)
        self._start_s = start_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process is not None else None

    def fork(self) -> tuple[int, Connection]:
        """A new process, by its id and our end of its pipe.

        Raises OSError: ChildProcessError if the server ended meanwhile, TimeoutError if it started too slowly.
        """
        ours, theirs = Pipe()
        with theirs, self._lock:
            try:
                line = self._line if self._line is not None else self._start()
                line.send_bytes(b"fork")
                reduction.send_handle(line, theirs.fileno(), None)
                found = int(line.recv_bytes())
            except (EOFError, ConnectionError):
                self._stop()
                ours.close()
                raise ChildProcessError from None
            except OSError:
                ours.close()
                raise
        if found < 0:
            ours.close()
            raise OSError(-found, os.strerror(-found))
        return found, ours

    def end(self, pid: int) -> None:
        """Kills a process, and returns once it is gone."""
        with self._lock:
            if self._line is None:
                return  # it ended with its server
            try:
                self._line.send_bytes(b"end %d" % pid)
                self._line.recv_bytes()
            except (EOFError, OSError):
                self._stop()

    def close(self) -> None:
        """Ends all its processes, too."""
        with self._lock:
            self._stop()

    def _start(self) -> Connection:
        self._line, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                # What libraries warn of would stand between a service's log lines, and quotes answers.
                [sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM, str(theirs.fileno()), *self._arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        if not self._line.poll(self._start_s):
            self._stop()
            raise TimeoutError
        self._line.recv_bytes()
        return self._line

    def _stop(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self._process = None


def main(line: str, target: str, *imports: str) -> None:
    """The server itself. It has one thread only, because a fork copies no other."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # to a whole family of processes; what is being judged goes on
    module, name = target.split(":")
    live: Callable[[Connection], None] = getattr(importlib.import_module(module), name)
    for other in imports:
        importlib.import_module(other)
    gc.freeze()  # a collection in a forked process would copy every page that both could share
    with contextlib.suppress(EOFError, OSError):
        _serve(Connection(int(line)), live)


def _serve(line: Connection, live: Callable[[Connection], None]) -> None:
    children: set[int] = set()
    line.send_bytes(b"ready")
    while True:
        match line.recv_bytes().split():
            case [b"fork"]:
                pipe = Connection(reduction.recv_handle(line))
                pid = _fork(line, pipe, live)
                pipe.close()
                children.add(pid)
                line.send_bytes(b"%d" % pid)
            case [b"end", digits]:
                if (pid := int(digits)) in children:  # else it was an earlier server's, and ended with that
                    children.remove(pid)
                    os.kill(pid, signal.SIGKILL)  # it cannot be another's: ours stays known until we wait for it
                    os.waitpid(pid, 0)
                line.send_bytes(b"ended")


def _fork(line: Connection, pipe: Connection, live: Callable[[Connection], None]) -> int:
    """-> its id, or the negative number of the error."""
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if not pid:
        line.close()
        _become(server, pipe, live)
    return pid


def _become(server: int, pipe: Connection, live: Callable[[Connection], None]) -> NoReturn:
    try:
        die_with_parent(server)
        live(pipe)
    finally:
        os._exit(0)
