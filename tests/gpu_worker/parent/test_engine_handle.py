from __future__ import annotations

import json
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ponder_worker.parent import engine_handle
from ponder_worker.parent.engine_handle import EngineHandle, Message, Send, parse


class Child(threading.Thread):
    """Asks one question in the place of the engine process, and reports the answer."""

    def __init__(self, target: Any, args: tuple[Connection, str], name: str, daemon: bool) -> None:
        super().__init__(target=self._live, args=args[:1], daemon=True)

    def _live(self, pipe: Connection) -> None:
        pipe.send_bytes(b'{"type": "verify", "number": 3}')
        answer = json.loads(pipe.recv_bytes())
        pipe.send_bytes(json.dumps({"type": "report", "heard": answer}).encode())


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


def test_a_question_is_answered_from_the_readers_thread_and_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_handle.multiprocessing, "get_context", lambda kind: Context)

    def answer(question: Message, send: Send) -> None:
        send({"type": "verdict", "number": question["number"]})

    handle = EngineHandle({}, lambda: None, answer)
    assert handle.receive(10) == {"type": "report", "heard": {"type": "verdict", "number": 3}}


def test_an_engine_process_that_hangs_says_where(tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handle = EngineHandle({"model": str(tiny_llama), "num_threads": 1}, lambda: None, lambda question, send: None)
    assert [(handle.receive(60) or {}).get("type") for _ in range(2)] == ["loading", "ready"]
    handle.show_stacks()
    handle.send({"type": "report"})
    assert "report" in (handle.receive(60) or {}).values(), "it goes on"
    handle.kill()
    assert "loop.py" in capfd.readouterr().err


def test_what_postgres_could_not_store_does_not_get_through() -> None:
    assert parse(b'{"text": "a\\u0000b", "ids": [1], "logprob": -Infinity, "score": NaN}') == {
        "text": "a\ufffdb",
        "ids": [1],
        "logprob": None,
        "score": None,
    }


def test_a_surrogate_without_its_other_half_does_not_get_through() -> None:
    assert parse(b'{"text": "a\\ud800b \\ud83d\\ude00"}') == {"text": "a\ufffdb \U0001f600"}
