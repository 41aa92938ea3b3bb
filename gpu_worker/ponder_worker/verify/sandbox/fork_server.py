"""A process that imports modules once and is forked for each new process, which costs milliseconds.

`multiprocessing` has one fork server for a whole program. Here each server has its own imports.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NoReturn

from ponder_worker.parent_death import die_with_parent

_PROGRAM = "from ponder_worker.verify.sandbox.fork_server import main; main(*__import__('sys').argv[1:])"


_PATIENCE = 3
"""Processor time is waited for this many times as long by the clock, because others may need the processor."""
_LOOK_S = 0.5


class ForkServer:
    """Starts at the first fork, and again after it was killed. May be called from any thread.

    Its processes end with it, and it ends with the process that made it.
    """

    def __init__(self, target: Callable[[Connection], None], *imports: str, start_s: float = 60.0) -> None:
        """Each forked process runs `target`, found by its name, with its end of a pipe. The imports get `start_s`
        seconds of processor time.
        """
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

        Raises OSError: ChildProcessError if the server ended meanwhile, TimeoutError if it started too slowly, another
        one if it could not fork.
        """
        ours, theirs = Pipe()
        with theirs, self._lock:
            try:
                control = self._control if self._control is not None else self._start()
                control.send_bytes(b"fork")
                _send_descriptor(control, theirs.fileno())
                found = int(control.recv_bytes())
            except TimeoutError:
                ours.close()
                raise
            except (EOFError, OSError) as error:
                self._stop()
                ours.close()
                raise ChildProcessError from error
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
        if not answers_within(self._control, self._process.pid, self._start_s):
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


def answers_within(pipe: Connection, pid: int, limit_s: float) -> bool:
    """Waits for an answer of a process, or for its end. Gives up after `limit_s` of its processor time, or three times
    that by the clock.

    A verdict must not depend on how busy the machine is, and not on a stop of the whole worker either: each look
    counts only for as long as it was meant to take.
    """
    started_s, waited_s = _processor_s(pid), 0.0
    while waited_s < _PATIENCE * limit_s:
        left_s = limit_s - (_processor_s(pid) - started_s)
        if left_s <= 0:
            break
        look_s = min(_LOOK_S, max(0.01, left_s))
        if pipe.poll(look_s):
            return True
        waited_s += look_s
    return pipe.poll()


def _processor_s(pid: int) -> float:
    """Returns the processor time that a process has used, or the time by the clock where this cannot be known."""
    if sys.platform != "linux":
        return time.monotonic()
    try:
        return time.clock_gettime(~pid << 3 | 2)  # see clock_getcpuclockid(3)
    except OSError:  # it is gone, as its pipe will tell
        return 0.0


def _send_descriptor(control: Connection, descriptor: int) -> None:
    """Sends a descriptor to `_serve`. `multiprocessing.reduction` does the same, but without `setblocking`.

    Celery and kombu set a default time-out for the sockets of the whole process while they connect and stop. A socket
    that is made then is not blocking, and shares this with the pipe that it is made from.
    """
    with socket.fromfd(control.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.setblocking(True)
        socket.send_fds(channel, [b"."], [descriptor])


def _receive_descriptor(control: Connection) -> int:
    """Returns a descriptor from `_send_descriptor`. Raises EOFError if the sender is gone."""
    with socket.fromfd(control.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    return descriptors[0]


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
                pipe = Connection(_receive_descriptor(control))
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
        die_with_parent(server)
        live(pipe)
    finally:
        os._exit(0)
