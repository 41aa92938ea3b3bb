"""The parent's side of a question that a search asks."""

from __future__ import annotations

import queue
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from ponder.domain.state import Verdict as JobVerdict
from ponder_worker.parent.settlement import Submit
from ponder_worker.parent.verifier_bridge import VerifierBridge
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Ask, Verdict
from ponder_worker.verify import Case, Judge, Judgement

from ..claimed_job import claimed_job

NAME_WANTED = {"name": "json_schema", "schema": {"required": ["name"]}}
HANGS = {"name": "regex", "pattern": "^(a+)+$"}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(num_processes=1, limit_s=2.0)
    yield judge
    judge.close()


class Desk:
    def __init__(self, submit: Submit) -> None:
        self.capacity = WorkerCapacity()
        self.bridge = VerifierBridge(submit, self.capacity)
        self.sent: queue.SimpleQueue[Verdict] = queue.SimpleQueue()

    def hold(self, job_id: int, **request: Any) -> None:
        self.capacity.add([claimed_job(job_id, **request)], 1)

    def ask(self, job_id: int, answer: str | None) -> None:
        self.bridge.answer(Ask(job_id, 7, answer), self.sent.put)

    def receive(self) -> Verdict:
        return self.sent.get(timeout=30)


@pytest.fixture
def desk(judge: Judge) -> Desk:
    return Desk(judge.submit)


def test_a_wrong_candidate_is_told_what_is_wrong_with_it(desk: Desk) -> None:
    desk.hold(1, verifier=NAME_WANTED)
    desk.ask(1, '{"age": 3}')
    verdict = desk.receive()
    assert (verdict.job_id, verdict.number, verdict.passed) == (1, 7, False)
    assert "'name' is a required property" in verdict.feedback
    desk.ask(1, '{"name": "Ada"}')
    assert desk.receive() == Verdict(1, 7, passed=True, feedback="")


def test_a_verifier_that_hangs_fails_its_candidate_and_nothing_else(desk: Desk) -> None:
    desk.hold(1, verifier=HANGS)
    desk.hold(2, verifier={"name": "contains", "texts": ["b"]})
    desk.ask(1, "a" * 60 + "!")
    desk.ask(2, "b")
    assert desk.receive().job_id == 2
    verdict = desk.receive()
    assert (verdict.job_id, verdict.passed) == (1, False)
    assert "more than 2 s" in verdict.feedback


def test_the_reference_is_looked_at_only_where_the_job_says_oracle(desk: Desk) -> None:
    request = {"verifier": {"name": "number"}, "reference": "4"}
    desk.hold(1, **request)
    desk.ask(1, "4")
    assert desk.receive() == Verdict(1, 7, passed=None, feedback="no reference")
    desk.hold(2, **request, oracle=True)
    desk.ask(2, "4")
    assert desk.receive().passed is True


def test_what_a_job_asked_is_not_judged_any_more_when_it_is_dropped() -> None:
    submitted: dict[str | None, Future[Judgement]] = {}

    def submit(case: Case, whose: Hashable) -> Future[Judgement]:
        return submitted.setdefault(case.answer, Future())

    desk = Desk(submit)
    for job_id in (1, 2):
        desk.hold(job_id, verifier=NAME_WANTED)
        desk.ask(job_id, f"of {job_id}")
    desk.bridge.forget([1])
    assert {answer: future.cancelled() for answer, future in submitted.items()} == {"of 1": True, "of 2": False}
    submitted["of 2"].set_result(Judgement(JobVerdict.PASSED))
    assert desk.receive().job_id == 2
    assert desk.sent.empty()


def test_nobody_answers_for_a_job_that_is_not_held_any_more(desk: Desk) -> None:
    desk.ask(1, "4")
    assert desk.sent.empty()
