"""A process that imports modules once and is forked for each new process, which costs milliseconds.

`multiprocessing` has one fork server for a whole program. Here each server has its own imports.
"""

from __future__ import annotations

import contextlib
import ctypes
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

_PROGRAM = "from ponder_worker.verify.sandbox.fork_server import main; main(*__import__('sys').argv[1:])"
_PR_SET_PDEATHSIG = 1


class ForkServer:
    """Starts at the first fork, and again after it was killed. May be called from any thread.

    Its processes end with it, and it ends with the process that made it.
    """

    def __init__(self, target: Callable[[Connection], None], *imports: str, start_s: float = 60.0) -> None:
        """Each forked process runs `target`, found by its name, with its end of a pipe. The imports get `start_s`."""
        self._arguments = (f"{target.__module__}:{target.__qualname__}", *imports)
        self._start_s = start_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id, or None while it does not run."""
        return self._process.pid if self._process is not None else None

    def fork(self) -> tuple[int, Connection]:
        """Returns the id of a new process and our end of its pipe.

        Raises OSError: ChildProcessError if the server ended meanwhile, TimeoutError if it started too slowly.
        """
        ours, theirs = Pipe()
        with theirs, self._lock:
            try:
                control = self._control if self._control is not None else self._start()
                control.send_bytes(b"fork")
                reduction.send_handle(control, theirs.fileno(), None)
                found = int(control.recv_bytes())
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
        """Kills a process and waits until it is gone."""
        with self._lock:
            if self._control is None:
                return  # the process ended with its server
            try:
                self._control.send_bytes(b"end %d" % pid)
                self._control.recv_bytes()
            except (EOFError, OSError):
                self._stop()

    def close(self) -> None:
        """Ends the server and all its processes."""
        with self._lock:
            self._stop()

    def _start(self) -> Connection:
        self._control, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                # Warnings of libraries would break up a service's log, and they quote answers.
                [sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM, str(theirs.fileno()), *self._arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        if not self._control.poll(self._start_s):
            self._stop()
            raise TimeoutError
        self._control.recv_bytes()
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None


def main(control_fd: str, target: str, *imports: str) -> None:
    """Runs the server. It has one thread only, because a fork copies no other."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a signal to the group must not end a case
    module, name = target.split(":")
    live: Callable[[Connection], None] = getattr(importlib.import_module(module), name)
    for other in imports:
        importlib.import_module(other)
    gc.freeze()  # a collection in a forked process would copy every page that both could share
    with contextlib.suppress(EOFError, OSError):
        _serve(Connection(int(control_fd)), live)


def _serve(control: Connection, live: Callable[[Connection], None]) -> None:
    children: set[int] = set()
    control.send_bytes(b"ready")
    while True:
        match control.recv_bytes().split():
            case [b"fork"]:
                pipe = Connection(reduction.recv_handle(control))
                pid = _fork(control, pipe, live)
                pipe.close()
                children.add(pid)
                control.send_bytes(b"%d" % pid)
            case [b"end", digits]:
                if (pid := int(digits)) in children:  # otherwise it ended with an earlier server
                    children.remove(pid)
                    os.kill(pid, signal.SIGKILL)  # the id cannot be reused before we wait for it
                    os.waitpid(pid, 0)
                control.send_bytes(b"ended")


def _fork(control: Connection, pipe: Connection, live: Callable[[Connection], None]) -> int:
    """Returns the id, or the negative number of the error."""
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if not pid:
        control.close()
        _become(server, pipe, live)
    return pid


def _become(server: int, pipe: Connection, live: Callable[[Connection], None]) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:  # else it died before we could be tied to it
            live(pipe)
    finally:
        os._exit(0)
