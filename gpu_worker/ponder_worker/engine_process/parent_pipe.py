"""The talk with the parent process: commands in, events out, and questions with their answers."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection

from ponder_worker.protocol import Ask, Command, Event, Verdict, decode_command, encode

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


Answered = Callable[[Verdict], None]


class Questions:
    """Asks verifiers, which are in the parent process.

    Each question is sent at once. `done` is called when the answer comes, unless the job was dropped by then.
    """

    def __init__(self, send: Callable[[Ask], None]) -> None:
        self.num_answered = 0
        self._send = send
        self._numbers = count()
        self._open: dict[int, tuple[int, Answered]] = {}

    def ask(self, job_id: int, answer: str | None, done: Answered) -> None:
        """Asks whether this candidate's answer is right."""
        number = next(self._numbers)
        self._open[number] = (job_id, done)
        self._send(Ask(job_id, number, answer))

    def answer(self, verdict: Verdict) -> None:
        asked = self._open.pop(verdict.number, None)
        if asked is not None:
            self.num_answered += 1
            asked[1](verdict)

    @property
    def job_ids(self) -> set[int]:
        """The jobs that wait for an answer."""
        return {job_id for job_id, _ in self._open.values()}

    def drop(self, job_id: int) -> None:
        self._open = {number: asked for number, asked in self._open.items() if asked[0] != job_id}
