"""The engine process over a real pipe, and jobs for it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest

from ponder_worker import engine_process

STRATEGIES: list[dict[str, Any]] = [
    {"name": "direct"},
    {"name": "self_consistency", "n": 4},
    {"name": "best_of_n", "n": 4},
    {"name": "best_of_n", "n": 3, "select": "weighted"},
    {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 5, "separator": "a"},
    {"name": "dvts", "n": 4, "width": 2, "max_rounds": 3, "separator": "a"},
    {"name": "rebase", "n": 4, "max_rounds": 3, "separator": "a"},
    {"name": "mcts", "n": 3, "width": 2, "separator": "a"},
    {"name": "particle_filter", "n": 3, "max_rounds": 3, "separator": "a"},
    {"name": "budget_forcing", "answer": "="},
]
SCORELESS = {"direct", "self_consistency", "budget_forcing"}


class Line:
    """The parent's side of the protocol."""

    pipe: Connection

    def send(self, **message: Any) -> None:
        self.pipe.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        assert self.pipe.poll(60), "the process says nothing"
        message: dict[str, Any] = json.loads(self.pipe.recv_bytes())
        return message

    def report(self) -> dict[str, Any]:
        self.send(type="report")
        return self.receive()


class Process(Line):
    """An engine process as a worker starts it."""

    def __init__(self, **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=engine_process.main, args=(theirs, json.dumps(options)), daemon=True)
        self.process.start()
        theirs.close()
        self.loading: dict[str, Any] = {}
        self.first = self.receive()
        if self.first["type"] == "loading":
            self.loading, self.first = self.first, self.receive()

    def admit(self, *jobs: dict[str, Any]) -> None:
        self.send(type="admit", jobs=list(jobs))

    def finish(self, num_jobs: int) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
        """-> finished by job, and all reports until then."""
        finished: dict[int, dict[str, Any]] = {}
        reports = []
        until = time.monotonic() + 120
        while len(finished) < num_jobs:
            assert time.monotonic() < until
            reports.append(self.report())
            finished |= {entry["job_id"]: entry for entry in reports[-1]["finished"]}
            time.sleep(0.05)
        return finished, reports

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            pytest.fail("the process outlived its pipe")


def job(job_id: int, strategy: dict[str, Any], *, prompt: str = "Compute 1 + 1.", **changes: Any) -> dict[str, Any]:
    sampling = {
        "temperature": 1.0,
        "top_p": None,
        "max_tokens": 24,
        "stop": [],
        "seed": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": False,
    } | changes.pop("sampling", {})
    request = {
        "messages": [{"role": "user", "content": prompt}],
        "sampling": sampling,
        "n": 1,
        "strategy": strategy,
        "budget": {},
        "verifier": None,
        "reference": None,
    }
    return {"job_id": job_id, "tenant_id": "tenant_a", "request": request | changes, "deltas": []}
