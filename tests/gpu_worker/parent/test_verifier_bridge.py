"""The parent's side of a question that a search asks."""

from __future__ import annotations

import queue
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from ponder.domain.state import Verdict
from ponder.jobs.claim import ClaimedJob
from ponder_worker.parent.settlement import Hear
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.verify import Case, Judge, Judgement

NAME_WANTED = {"name": "json_schema", "schema": {"required": ["name"]}}
HANGS = {"name": "regex", "pattern": "^(a+)+$"}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(num_processes=1, limit_s=2.0)
    yield judge
    judge.close()


class Desk:
    def __init__(self, hear: Hear) -> None:
        self.holding = WorkerCapacity()
        self.counsel = VerifierBridge(hear, self.holding)
        self.said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def hold(self, job_id: int, **request: Any) -> None:
        self.holding.add([ClaimedJob(job_id, "t", "b", request, [])], 1)

    def ask(self, job_id: int, answer: str | None) -> None:
        question = {"type": "verify", "job_id": job_id, "number": 7, "answer": answer}
        self.counsel.answer(question, lambda message: self.said.put(dict(message)))

    def hear(self) -> dict[str, Any]:
        return self.said.get(timeout=30)


@pytest.fixture
def desk(judge: Judge) -> Desk:
    return Desk(judge.hear)


def test_a_wrong_candidate_is_told_what_is_wrong_with_it(desk: Desk) -> None:
    desk.hold(1, verifier=NAME_WANTED)
    desk.ask(1, '{"age": 3}')
    told = desk.hear()
    assert (told["type"], told["job_id"], told["number"], told["passed"]) == ("verdict", 1, 7, False)
    assert "'name' is a required property" in told["feedback"]
    desk.ask(1, '{"name": "Ada"}')
    assert desk.hear() == {"type": "verdict", "job_id": 1, "number": 7, "passed": True, "feedback": ""}


def test_a_verifier_that_hangs_fails_its_candidate_and_nothing_else(desk: Desk) -> None:
    desk.hold(1, verifier=HANGS)
    desk.hold(2, verifier={"name": "contains", "texts": ["b"]})
    desk.ask(1, "a" * 60 + "!")
    desk.ask(2, "b")
    assert desk.hear()["job_id"] == 2
    told = desk.hear()
    assert (told["job_id"], told["passed"]) == (1, False)
    assert "more than 2 s" in told["feedback"]


def test_the_reference_is_looked_at_only_where_the_job_says_oracle(desk: Desk) -> None:
    request = {"verifier": {"name": "number"}, "reference": "4"}
    desk.hold(1, **request)
    desk.ask(1, "4")
    assert desk.hear()["refused"] == "no reference"
    desk.hold(2, **request, oracle=True)
    desk.ask(2, "4")
    assert desk.hear()["passed"] is True


def test_what_a_job_asked_is_not_judged_any_more_when_it_is_dropped() -> None:
    heard: dict[str | None, Future[Judgement]] = {}

    def hear(case: Case, whose: Hashable) -> Future[Judgement]:
        return heard.setdefault(case.answer, Future())

    desk = Desk(hear)
    for job_id in (1, 2):
        desk.hold(job_id, verifier=NAME_WANTED)
        desk.ask(job_id, f"of {job_id}")
    desk.counsel.forget([1])
    assert {answer: future.cancelled() for answer, future in heard.items()} == {"of 1": True, "of 2": False}
    heard["of 2"].set_result(Judgement(Verdict.PASSED))
    assert desk.hear()["job_id"] == 2
    assert desk.said.empty()


def test_nobody_answers_for_a_job_that_is_not_held_any_more(desk: Desk) -> None:
    desk.ask(1, "4")
    assert desk.said.empty()
