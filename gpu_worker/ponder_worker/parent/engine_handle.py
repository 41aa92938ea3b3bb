"""The parent's end of the engine process: messages in and out, and its death noticed at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import re
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

Message = dict[str, Any]
Send = Callable[[Mapping[str, Any]], None]

_CLOSED: Message = {"type": "closed"}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class EngineHandle:
    """One engine process. `send` never blocks and never raises: a dead or hung engine shows in what is not received.

    Make it in a thread that lives as long as the process should: the kernel ends the child with that *thread*.
    `on_closed` is called once, from a thread of ours, when the pipe has ended: the process is dead or dying.
    `on_question` is called from there with what searches ask and with `send`, and must return at once.
    """

    def __init__(
        self, options: Mapping[str, Any], on_closed: Callable[[], None], on_question: Callable[[Message, Send], None]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run_engine, args=(theirs, json.dumps(options)), name="ponder-engine", daemon=True
        )
        # Blocked in the child from its first moment: a Ctrl-C or a SIGTERM to all of us is the parent's to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._on_closed = on_closed
        self._on_question = on_question
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[Message] = queue.SimpleQueue()
        # Threads of their own, because a pipe is full or empty for as long as the other end is in a step.
        threading.Thread(target=self._write, name="engine-writer", daemon=True).start()
        threading.Thread(target=self._read, name="engine-reader", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def send(self, message: Mapping[str, Any]) -> None:
        self._outgoing.put(json.dumps(message).encode())

    def receive(self, timeout_s: float) -> Message | None:
        """The next message in order, None when there was none in time, `{"type": "closed"}` after the last one."""
        try:
            message = self._incoming.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if message is _CLOSED:
            self._incoming.put(_CLOSED)
        return message

    def show_stacks(self) -> None:
        """Where each of its threads stands goes to standard error: what an operator needs to know of one that hangs."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """Ends the process if it still runs; everything that it had not reported is lost."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(1)
        self._outgoing.put(None)

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (data := self._outgoing.get()) is not None:
                self._pipe.send_bytes(data)

    def _read(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                message = parse(self._pipe.recv_bytes())
                if message["type"] == "verify":
                    self._on_question(message, self.send)
                else:
                    self._incoming.put(message)
        self._incoming.put(_CLOSED)
        self._on_closed()


def parse(data: bytes) -> Message:
    """JSON of the engine as Postgres can store it: a number that is none becomes null, and what is no text U+FFFD."""
    message: Message = json.loads(data, parse_constant=lambda _: None)
    is_clean = not any(escape in data for escape in (b"\\u0000", b"\\ud", b"\\uD"))
    return message if is_clean else _storable(message)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _run_engine(pipe: Connection, options: str) -> None:
    """In the child. Imported here, so that the parent holds no torch."""
    from ponder_worker import engine_process

    engine_process.main(pipe, options)
