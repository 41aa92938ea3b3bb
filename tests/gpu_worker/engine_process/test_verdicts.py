"""A search asks its verifier while it runs: the engine process on a real pipe, with a strategy that only asks."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ponder.domain.state import Lane
from ponder_worker.protocol import AdmittedJob, Ask, Drop, JobResult, Loading, Ready, Verdict

from ..process import EnginePipe, error_of

ASKS = """
import asyncio, sys
from multiprocessing.connection import Connection
from ponder_worker.engine_process import child
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.search import strategies

async def run(search, spec, max_rounds):
    made = []
    for number in range(3):
        made += [candidate async for candidate in search.complete(search.root)]
        verdict = asyncio.get_running_loop().create_future()
        search.engine.verify(made[-1].text, f"answer {number}", verdict.set_result)
        if (await verdict).passed is not False:
            break
    return made[::-1]

strategies.run = run
child.main(Connection(int(sys.argv[1])), EngineOptions(model=sys.argv[2], num_threads=1, kv_bytes=1 << 22))
"""
SCHEMA = {"name": "json_schema", "schema": {}}


class Child(EnginePipe):
    """An engine process whose searches do what a script says."""

    def __init__(self, script: Path, model: Path) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        command = [sys.executable, str(script), str(theirs.fileno()), str(model)]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        assert [type(self.receive()) for _ in range(2)] == [Loading, Ready]

    def finish(self, job_id: int) -> JobResult:
        while True:
            for result in self.report().results:
                if result.job_id == job_id:
                    return result

    def search(self, job_id: int, **changes: Any) -> None:
        sampling = dict.fromkeys(("top_p", "seed", "presence_penalty", "frequency_penalty", "stop"))
        request = {
            "messages": [{"role": "user", "content": "1 + 1?"}],
            "sampling": sampling | {"temperature": 1.0, "max_tokens": 3, "logprobs": False},
            "strategy": {"name": "direct"},
        }
        self.admit(AdmittedJob(job_id, "t", "b", Lane.BATCH, request | changes))

    def receive_ask(self) -> Ask:
        ask = self.receive()
        assert isinstance(ask, Ask)
        return ask

    def answer(self, ask: Ask, *, passed: bool | None, feedback: str = "") -> None:
        self.send(Verdict(ask.job_id, ask.number, passed, feedback))


@pytest.fixture(scope="module")
def child(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    script = tmp_path_factory.mktemp("asks") / "asks.py"
    script.write_text(ASKS)
    child = Child(script, tiny_llama)
    yield child
    child.pipe.close()
    assert child.process.wait(10) == 0


def test_a_question_is_asked_without_waiting_for_a_tick_and_its_answer_wakes_the_search(child: Child) -> None:
    child.search(1, verifier=SCHEMA)
    first = child.receive_ask()
    assert (first.job_id, first.answer) == (1, "answer 0")
    waiting = child.report()
    assert (waiting.num_jobs, waiting.results) == (1, ())
    child.answer(first, passed=False, feedback="not that")
    second = child.receive_ask()
    assert second.answer == "answer 1"
    child.answer(second, passed=True)
    finished = child.finish(1)
    assert finished.error is None
    assert len(finished.tree["nodes"]) == 1 + 2


def test_a_search_that_only_waits_for_verdicts_makes_progress_with_each(child: Child) -> None:
    child.search(2, verifier=SCHEMA)
    asked = child.receive_ask()
    child.report()
    waiting = child.report()
    assert (waiting.num_steps, waiting.awaits_verdicts) == (0, True)
    child.answer(asked, passed=True)
    answered = child.report()
    assert (answered.num_steps, answered.awaits_verdicts) == (1, False)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({}, "there is no verifier"),
        ({"verifier": {"name": "math"}, "reference": "2"}, "oracle: true"),
        ({"verifier": {"name": "math"}, "reference": None, "oracle": True}, "no"),
    ],
)
def test_a_verifier_that_may_not_be_asked_fails_the_job(child: Child, request_: dict[str, Any], reason: str) -> None:
    child.search(3, **request_)
    error = error_of(child.finish(3))
    assert error.code == "no_verifier"
    assert reason in error.message


@pytest.mark.parametrize("asking", [{"max_rounds": 2}, {"strategy": {"name": "refine"}}])
def test_who_could_only_ask_in_vain_fails_before_it_has_made_anything(child: Child, asking: dict[str, Any]) -> None:
    child.search(7, **asking)
    finished = child.finish(7)
    assert error_of(finished).code == "no_verifier"
    assert len(finished.tree["nodes"]) == 1


def test_with_oracle_the_reference_may_drive_the_search(child: Child) -> None:
    child.search(4, verifier={"name": "math"}, reference="2", oracle=True)
    child.answer(child.receive_ask(), passed=True)
    assert child.finish(4).error is None


def test_where_nobody_can_judge_what_was_made_by_then_is_the_answer(child: Child) -> None:
    child.search(5, verifier={"name": "python_tests", "tests": "assert True"})
    child.answer(child.receive_ask(), passed=None, feedback="this worker runs no code")
    finished = child.finish(5)
    assert finished.error is None
    assert len(finished.choices) == 1
    assert "passed" not in finished.tree["nodes"][1]


def test_the_verdict_of_a_job_that_was_dropped_meanwhile_is_dropped_too(child: Child) -> None:
    child.search(6, verifier=SCHEMA)
    asked = child.receive_ask()
    child.send(Drop((6,)))
    child.answer(asked, passed=True)
    report = child.report()
    assert (report.num_jobs, report.results) == (0, ())
