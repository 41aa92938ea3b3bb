"""The real API on a real socket, and a thread that plays the dispatcher and a worker without an engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ponder.cli.main import run
from ponder.domain.state import IncarnationState, JobState, Verdict
from ponder.jobs.claim import claim
from ponder.jobs.dispatching.dispatch import dispatch
from ponder.jobs.dispatching.finish import finish
from ponder.jobs.incarnation import ready, register
from ponder.jobs.piloting.conclusions import Conclusions
from ponder.jobs.tally import tally
from ponder.jobs.tick import Settlement, TickReport, Usage, Work, tick
from ponder.jobs.validation.validate import validate

INCARNATION = "inc_0123456789abcdef01234567"
TREE = {
    "nodes": [
        {"parent": -1, "ordinal": 0, "text": ""},
        {"parent": 0, "ordinal": 0, "text": "3 + 4 = 7\nAnswer: 7", "state": "finished", "score": -0.5},
        {"parent": 0, "ordinal": 1, "text": "3 + 4 = 8", "state": "pruned", "score": -4.0},
    ],
    "candidates": [{"node": 1, "answer": "7", "score": -0.5}],
    "chosen": 0,
}


@dataclass
class Ponder:
    """The command line against the real server."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Returns exit code, stdout and stderr."""
        try:
            code = run(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def ponder(
    base_url: str, operator_key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Ponder:
    monkeypatch.setenv("PONDER_BASE_URL", base_url)
    monkeypatch.setenv("PONDER_API_KEY", operator_key)
    return Ponder(capsys)


@pytest.fixture
def worker(engine: Engine) -> Iterator[Callable[[int], None]]:
    """Settles everything until the test ends; call it with a line's number to make that job fail from now on."""
    bad_lines: set[int] = set()
    stop = threading.Event()
    _register(engine)
    thread = threading.Thread(target=_work, args=(engine, bad_lines, stop))
    thread.start()
    yield bad_lines.add
    stop.set()
    thread.join()


def _register(engine: Engine) -> None:
    who: dict[str, Any] = {"worker": "w1", "host": "here", "pid": 1, "model": "demo"}
    what: dict[str, Any] = {"fingerprint": "f0", "context_length": 4096, "has_reward_model": True}
    with engine.begin() as connection:
        register(connection, id=INCARNATION, machine="cpu", market="on_demand", lease_s=600, **who)
        ready(connection, INCARNATION, room_tokens=1_000_000, **what)


def _work(engine: Engine, bad_lines: set[int], stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.05):
        with engine.connect() as connection:
            waiting = connection.execute(text("SELECT id FROM batches WHERE state = 'validating'")).scalars().all()
        for batch_id in waiting:
            validate(engine, batch_id)
        with engine.begin() as connection:
            messages = dispatch(connection, shard_tokens=200_000)
        for message in messages:
            with engine.begin() as connection:
                taken = claim(connection, message.shard_id, INCARNATION)
                ids = [job.job_id for job in taken.jobs] if taken else []
                rows = connection.execute(
                    text("SELECT id, line FROM jobs WHERE id = ANY(CAST(:ids AS bigint[]))"), {"ids": ids}
                )
                lines = {row.id: row.line for row in rows}
                number += 1
                settled = [_settle(job_id, lines[job_id] in bad_lines) for job_id in ids]
                tick(connection, _report(number, settled))
        Conclusions(engine).turn(time.monotonic())
        with engine.begin() as connection:
            finish(connection)
        with engine.begin() as connection:
            tally(connection)


def _report(number: int, settled: list[Settlement]) -> TickReport:
    return TickReport(
        INCARNATION,
        number,
        600,
        progressed=True,
        state=IncarnationState.READY,
        room_tokens=1_000_000,
        work=[Work(settlement.job_id, 1.0) for settlement in settled],
        settled=settled,
    )


def _settle(job_id: int, is_bad: bool) -> Settlement:
    if is_bad:
        return Settlement(job_id, JobState.FAILED, error={"code": "worker_lost", "message": "lost three times"})
    choice = {"text": "3 + 4 = 7\nAnswer: 7", "answer": "7", "finish_reason": "stop", "score": -0.5}
    return Settlement(
        job_id,
        JobState.COMPLETED,
        Verdict.PASSED,
        answer="7",
        finish_reason="stop",
        choices=[choice],
        usage=Usage(prompt_tokens=9, completion_tokens=12),
        tree=TREE,
    )
