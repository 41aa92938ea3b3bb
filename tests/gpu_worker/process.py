"""The engine process over a real pipe, and jobs for it."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest

from ponder.domain.state import Lane
from ponder_worker.engine_process import child
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.protocol import (
    Admit,
    AdmittedJob,
    Command,
    Document,
    Event,
    Failed,
    JobError,
    JobResult,
    Loading,
    Ready,
    Report,
    ReportRequest,
    decode_event,
    encode,
)

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
    {"name": "self_consistency", "n": 4, "confidence": {"window": 4, "num_warmup": 2}},
    {"name": "answer_probing", "every": 8, "probe": "=", "probe_tokens": 4, "answer": "="},
    {"name": "ab_mcts", "n": 3, "refine": "Again"},
]
SCORELESS = {"direct", "self_consistency", "budget_forcing", "answer_probing"}


class EnginePipe:
    """The parent's end of the pipe."""

    pipe: Connection
    patience_s = 60
    """How long it may say nothing."""

    def send(self, command: Command) -> None:
        self.pipe.send_bytes(encode(command))

    def receive(self) -> Event:
        assert self.pipe.poll(self.patience_s), "the process says nothing"
        return decode_event(self.pipe.recv_bytes())

    def report(self) -> Report:
        self.send(ReportRequest())
        return self.receive_report()

    def receive_report(self) -> Report:
        report = self.receive()
        assert isinstance(report, Report)
        return report

    def admit(self, *jobs: AdmittedJob) -> None:
        self.send(Admit(jobs))


class Process(EnginePipe):
    """An engine process as a worker starts it."""

    def __init__(self, **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=child.main, args=(theirs, EngineOptions(**options)), daemon=True)
        self.process.start()
        theirs.close()
        self.loading: Loading | None = None
        self.first = self.receive()
        if isinstance(self.first, Loading):
            self.loading, self.first = self.first, self.receive()

    @property
    def ready(self) -> Ready:
        assert isinstance(self.first, Ready)
        return self.first

    @property
    def failed(self) -> Failed:
        assert isinstance(self.first, Failed)
        return self.first

    def finish(self, num_jobs: int) -> tuple[dict[int, JobResult], list[Report]]:
        """Returns results by job, and all reports until then."""
        results: dict[int, JobResult] = {}
        reports = []
        until = time.monotonic() + 120
        while len(results) < num_jobs:
            assert time.monotonic() < until
            reports.append(self.report())
            results |= {result.job_id: result for result in reports[-1].results}
            time.sleep(0.05)
        return results, reports

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            pytest.fail("the process outlived its pipe")


def job(
    job_id: int,
    strategy: Document,
    *,
    prompt: str = "Compute 1 + 1.",
    batch_id: str = "batch_a",
    lane: Lane = Lane.BATCH,
    **changes: Any,
) -> AdmittedJob:
    """Makes a job. changes: replace fields of the request, and those of `sampling` one by one."""
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
    return AdmittedJob(job_id, "tenant_a", batch_id, lane, request | changes)


def error_of(result: JobResult) -> JobError:
    assert result.error is not None
    return result.error
