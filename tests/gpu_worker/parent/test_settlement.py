"""Verdicts that take long, and those behind them."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from ponder.domain.state import JobState, Verdict
from ponder.jobs.claim import ClaimedJob
from ponder.jobs.tick import Usage
from ponder_worker.parent.settlement import Settling
from ponder_worker.protocol import Choice, JobError, JobResult
from ponder_worker.verify import Case, Judge, Judgement

from ..claimed_job import claimed_job

LOGPROBS = {"content": [{"token": "4", "logprob": -0.5}]}


def _result(job_id: int, error: JobError | None = None) -> JobResult:
    choice = Choice("Answer: 4", "4", "stop", None, LOGPROBS)
    return JobResult(job_id, error, choices=() if error else (choice,), usage=Usage(1, 2), tree={"nodes": []})


class Judges:
    """Verdicts come when the test gives them."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Case, Hashable, Future[Judgement]]] = []

    def submit(self, case: Case, whose: Hashable) -> Future[Judgement]:
        future: Future[Judgement] = Future()
        self.submitted.append((case, whose, future))
        return future

    def pass_(self, number: int) -> None:
        self.submitted[number][2].set_result(Judgement(Verdict.PASSED))


def _job(job_id: int) -> ClaimedJob:
    return claimed_job(job_id, f"tenant-{job_id}", verifier={"name": "math"}, reference="4")


def test_what_is_judged_is_settled_and_what_is_not_waits() -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    for job_id in range(3):
        settling.add(_job(job_id), _result(job_id))
        settling.add(_job(job_id), _result(job_id))
    assert [whose for _, whose, _ in judges.submitted] == ["tenant-0", "tenant-1", "tenant-2"]
    judges.pass_(1)
    assert [(one.job_id, one.verdict, one.answer) for one in settling.take()] == [(1, Verdict.PASSED, "4")]
    judges.pass_(0)
    judges.pass_(2)
    assert {one.job_id for one in settling.take(5)} == {0, 2}
    assert settling.take() == []


def test_the_judge_of_a_job_that_was_dropped_is_told_to_let_it_be() -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    settling.add(_job(1), _result(1))
    settling.forget(1)
    assert judges.submitted[0][2].cancelled()
    assert settling.take() == []


def test_a_job_that_failed_is_settled_without_a_verdict() -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    settling.add(_job(1), _result(1, JobError("code", "message")))
    assert judges.submitted[0][0].verifier is None
    judges.submitted[0][2].set_result(Judgement(Verdict.UNVERIFIED))
    (one,) = settling.take()
    assert (one.state, one.verdict, one.answer) == (JobState.FAILED, None, None)
    assert one.error == {"code": "code", "message": "message"}


def test_a_choice_is_stored_with_every_field_and_its_own_logprobs() -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    settling.add(_job(1), _result(1))
    judges.pass_(0)
    (one,) = settling.take()
    choice = {"text": "Answer: 4", "answer": "4", "finish_reason": "stop", "score": None, "logprobs": LOGPROBS}
    choice["reasoning"] = None
    assert (list(one.choices), one.usage, one.tree) == ([choice], Usage(1, 2), {"nodes": []})


def _judged_job(reference: str | None = "4") -> ClaimedJob:
    return claimed_job(1, verifier={"name": "judge"}, reference=reference)


@pytest.mark.parametrize(
    ("judged", "verdict"), [(True, Verdict.PASSED), (False, Verdict.FAILED), (None, Verdict.UNVERIFIED)]
)
def test_the_verdict_of_a_judged_job_is_the_judges_and_the_check_stands_beside_it(
    judged: bool | None, verdict: Verdict
) -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    choice = Choice("2 + 2 is 4.\nThe answer is 5.", "2 + 2 is 4.\nThe answer is 5.", "stop", None)
    settling.add(_judged_job(), JobResult(1, choices=(choice,), judged=judged))
    case = judges.submitted[0][0]
    assert case.spec is not None
    assert (case.spec.name, case.answer, case.reference) == ("math", "5", "4")
    judges.submitted[0][2].set_result(Judgement(Verdict.FAILED, "not equal"))
    with capture_logs() as logged:
        (one,) = settling.take()
    assert (one.verdict, one.checked) == (verdict, Verdict.FAILED)
    reasons = [entry["reason"] for entry in logged]
    assert reasons == (["the judge gave no verdict"] if judged is None else [])


def test_a_judged_job_without_a_reference_is_not_checked() -> None:
    with closing(Judge()) as judge:
        settling = Settling(judge.submit)
        settling.add(_judged_job(None), replace(_result(1), judged=True))
        (one,) = settling.take(10)
    assert (one.verdict, one.checked) == (Verdict.PASSED, None)


def test_a_judged_job_that_failed_has_neither_verdict() -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    settling.add(_judged_job(), _result(1, JobError("code", "message")))
    judges.submitted[0][2].set_result(Judgement(Verdict.UNVERIFIED))
    (one,) = settling.take()
    assert (one.state, one.verdict, one.checked) == (JobState.FAILED, None, None)


def test_why_nobody_could_judge_is_logged_once() -> None:
    judges = Judges()
    settling = Settling(judges.submit)
    with capture_logs() as logged:
        for job_id in range(3):
            settling.add(_job(job_id), _result(job_id))
            judges.submitted[job_id][2].set_result(Judgement(Verdict.UNVERIFIED, "this machine cannot"))
        assert {one.verdict for one in settling.take()} == {Verdict.UNVERIFIED}
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("not_verified", "this machine cannot")]
