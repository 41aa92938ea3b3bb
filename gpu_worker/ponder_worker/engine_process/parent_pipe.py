"""The engine process's end of the pipe to its parent."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from ponder_worker.protocol import Command, Event, decode_command, encode

_FLUSHED_WITHIN_S = 2.0


class ParentPipe:
    """Sends events without blocking and hands commands on in order. The process exits when the parent is gone."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # A thread of its own, because the pipe may be full while the parent waits for this process to read.
        self._writer = threading.Thread(target=self._write, daemon=True)

    def start(self, on_command: Callable[[Command], None], on_error: Callable[[Exception], None]) -> None:
        """Calls `on_command` from the running event loop, and `on_error` with what it or the decoding raises."""

        def read() -> None:
            try:
                while self._pipe.poll():
                    on_command(decode_command(self._pipe.recv_bytes()))
            except (EOFError, OSError):
                os._exit(0)
            except Exception as error:  # asyncio would log it and go on
                on_error(error)

        self._writer.start()
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), read)

    def send(self, event: Event) -> None:
        self._outgoing.put(encode(event))

    def flush(self) -> None:
        """Waits until everything is sent, but not for long. Nothing can be sent after it."""
        self._outgoing.put(None)
        self._writer.join(_FLUSHED_WITHIN_S)

    def _write(self) -> None:
        try:
            while (data := self._outgoing.get()) is not None:
                self._pipe.send_bytes(data)
        except OSError:
            os._exit(0)
