"""The parent's end of the engine process: commands in, events out, and its death noticed at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import structlog

from ponder_worker.engine_process import child
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.protocol import Ask, Command, Event, InvalidMessage, decode_event, encode

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Closed:
    """The pipe has ended: the engine process is dead or dying."""


Send = Callable[[Command], None]


class EngineHandle:
    """One engine process. `send` never blocks and never raises: a dead or hung engine shows in what is not received.

    Make it in a thread that lives as long as the process should: the kernel ends the child with that *thread*.
    `on_closed` is called once, from another thread, when the pipe has ended.
    `on_ask` is called from that thread with what searches ask and with `send`, and must return at once.
    """

    def __init__(
        self, options: EngineOptions, on_closed: Callable[[], None], on_ask: Callable[[Ask, Send], None]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe: Connection
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=child.main, args=(theirs, options), name="ponder-engine", daemon=True)
        # Blocked in the child from its first moment: a Ctrl-C or SIGTERM to the whole group is the parent's to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._on_closed = on_closed
        self._on_ask = on_ask
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[Event | Closed] = queue.SimpleQueue()
        # Threads of their own, because a pipe is full or empty for as long as the other end is in a step.
        threading.Thread(target=self._write, name="engine-writer", daemon=True).start()
        threading.Thread(target=self._read, name="engine-reader", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def send(self, command: Command) -> None:
        self._outgoing.put(encode(command))

    def receive(self, timeout_s: float) -> Event | Closed | None:
        """Returns the next event in order; None if there is none in time, and Closed from the last one on."""
        try:
            event = self._incoming.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(event, Closed):
            self._incoming.put(event)
        return event

    def show_stacks(self) -> None:
        """Has a process that hangs print the stacks of its threads to standard error, for the operator."""
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
        try:
            while True:
                event = decode_event(self._pipe.recv_bytes())
                if isinstance(event, Ask):
                    self._on_ask(event, self.send)
                else:
                    self._incoming.put(event)
        except InvalidMessage as error:  # a bug of ours, after which nothing that the process says can be trusted
            _log.error("engine_not_understood", error=str(error))
        except (OSError, EOFError):
            pass
        self._incoming.put(Closed())
        self._on_closed()
