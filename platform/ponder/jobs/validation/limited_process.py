"""A separate process for work whose duration is unknown, so that it can be ended in the middle of it."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import FrameType

_MEMORY_BYTES = 4 << 30
_REPEAT_S = 0.02


class ProcessEnded(Exception):
    """The process died or was ended. Start another one."""


class TookTooLong(BaseException):
    """The time limit was reached. Not an Exception, which libraries would take for invalid input."""


class LimitedProcess:
    """A process that answers requests, which are bytes, one by one. It ends with the process that started it."""

    def __init__(self, function: Callable[[bytes], bytes]) -> None:
        """Starts the process and returns at once; requests wait until it is up. `function` is a module's, by name."""
        program = f"from {function.__module__} import {function.__name__} as answer; "
        program += f"from {__name__} import serve; serve(answer, int(__import__('sys').argv[1]))"
        self._line, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: bytes) -> None:
        """Raises ProcessEnded."""
        try:
            self._line.send_bytes(request)
        except OSError:
            raise ProcessEnded from None

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """Returns the answer, or None if there is none in time. Raises ProcessEnded."""
        try:
            return self._line.recv_bytes() if self._line.poll(timeout_s) else None
        except (EOFError, OSError):
            raise ProcessEnded from None

    @property
    def has_answer(self) -> bool:
        """Whether `receive` would return or raise at once."""
        return self._line.poll()

    def end(self) -> None:
        """Ends the process, even in the middle of its work."""
        self._process.kill()
        self._process.wait()
        self._line.close()


@contextlib.contextmanager
def within(processor_s: float) -> Iterator[None]:
    """Raises TookTooLong in the body after this many seconds of the process's processor time.

    A busy machine therefore refuses nothing. Works in the main thread only, because it is a signal; C code is
    interrupted when it returns.
    """
    # The signal repeats, because an exception raised while an object is being freed is lost.
    signal.setitimer(signal.ITIMER_PROF, processor_s, _REPEAT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(answer: Callable[[bytes], bytes], descriptor: int) -> None:
    """Runs inside the process: the main thread works, while another one reads requests and notices the parent's end."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the parent
    signal.signal(signal.SIGPROF, _ring)
    line = Connection(descriptor)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(line, requests), daemon=True).start()
    while True:
        line.send_bytes(answer(requests.get()))


def _listen(line: Connection, requests: queue.SimpleQueue[bytes]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            requests.put(line.recv_bytes())
    os._exit(0)


def _ring(number: int, frame: FrameType | None) -> None:
    raise TookTooLong
