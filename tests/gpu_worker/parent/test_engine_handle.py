from __future__ import annotations

import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.parent import engine_handle
from ponder_worker.parent.engine_handle import Closed, EngineHandle
from ponder_worker.protocol import (
    Ask,
    Failed,
    Loading,
    Ready,
    Report,
    ReportRequest,
    Verdict,
    decode_command,
    encode,
)


class Child(threading.Thread):
    """Asks one question in the place of the engine process, and reports the answer."""

    def __init__(self, target: Any, args: tuple[Connection, EngineOptions], name: str, daemon: bool) -> None:
        super().__init__(target=self._live, args=args[:1], daemon=True)

    def _live(self, pipe: Connection) -> None:
        pipe.send_bytes(encode(Ask(1, 3, "4")))
        verdict = decode_command(pipe.recv_bytes())
        pipe.send_bytes(encode(Failed(repr(verdict))))
        pipe.send_bytes(b"nonsense")


class Context:
    Process = Child

    @staticmethod
    def Pipe() -> tuple[Connection, Unclosed]:  # noqa: N802
        ours, theirs = Pipe()
        return ours, Unclosed(theirs)


class Unclosed:
    """The thread's end, which the parent must not close in its own process."""

    def __init__(self, pipe: Connection) -> None:
        self.send_bytes, self.recv_bytes = pipe.send_bytes, pipe.recv_bytes

    def close(self) -> None: ...


def test_an_ask_is_answered_from_the_readers_thread_and_nonsense_ends_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_handle.multiprocessing, "get_context", lambda kind: Context)

    closed = threading.Event()
    verdict = Verdict(1, 3, passed=True)
    handle = EngineHandle(EngineOptions(model=""), closed.set, lambda ask, send: send(verdict))
    assert handle.receive(10) == Failed(repr(verdict))
    assert [handle.receive(10), handle.receive(10)] == [Closed(), Closed()]
    assert closed.wait(10)


def test_an_engine_process_that_hangs_says_where(tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handle = EngineHandle(EngineOptions(str(tiny_llama), num_threads=1), lambda: None, lambda ask, send: None)
    assert [type(handle.receive(60)) for _ in range(2)] == [Loading, Ready]
    handle.show_stacks()
    handle.send(ReportRequest())
    assert isinstance(handle.receive(60), Report), "it goes on"
    handle.kill()
    assert "child.py" in capfd.readouterr().err
