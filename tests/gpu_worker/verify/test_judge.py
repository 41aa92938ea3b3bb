"""The judge: no case holds up or brings down another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from ponder.domain.state import Verdict
from ponder_worker.verify import Case, Judge, Judgement
from ponder_worker.verify import judge as judge_module
from ponder_worker.verify.examiner import Examiner, ExaminerDied

_MATH = {"name": "math"}
_EVIL = {"name": "json_schema", "schema": {"pattern": "^(a+)+$"}}
"""A pattern that backtracks for ever: it holds the interpreter, so that no alarm is heard."""
_HANGS = Case(_EVIL, '"' + "a" * 60 + '!"')


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(num_processes=2, limit_s=3.0)
    yield judge
    judge.close()


def test_one_that_hangs_fails_alone_and_the_pool_heals(judge: Judge) -> None:
    cases = [Case(_MATH, "1/2", "0.5"), _HANGS, Case(_MATH, "2", "3"), Case({"name": "exact"}, "1", "1")]
    found = [future.result() for future in [judge.hear(case) for case in cases]]
    assert [judgement.verdict.value for judgement in found] == ["passed", "failed", "failed", "passed"]
    assert "more than 3 s" in (found[1].reason or "")
    assert judge.examine(Case(_MATH, "1/2", "0.5")).verdict is Verdict.PASSED


def test_a_verifier_that_raises_fails_its_case_only(judge: Judge) -> None:
    bad = Case({"name": "json_schema", "schema": {"$ref": "#"}}, "1")  # is what it is, and so on
    found = judge.examine(bad)
    assert found.verdict is Verdict.FAILED
    assert "raised" in (found.reason or "")
    assert judge.examine(Case(_MATH, "4", "4")).verdict is Verdict.PASSED


def test_a_process_that_dies_says_so_and_is_not_used_again() -> None:
    examiner = Examiner()
    assert examiner.pid is not None
    os.kill(examiner.pid, signal.SIGKILL)
    with pytest.raises(ExaminerDied):
        examiner.examine(Case(_MATH, "1", "1"), 5.0)
    assert not examiner.is_alive


def _killed(examine: Callable[[Examiner, Case, float], Judgement], num: int) -> Callable[..., Judgement]:
    """The first `num` times somebody kills the process when it is about to examine."""
    killed: list[int] = []

    def examine_killed(self: Examiner, case: Case, limit_s: float) -> Judgement:
        if len(killed) < num:
            assert self.pid is not None
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)
        return examine(self, case, limit_s)

    return examine_killed


@pytest.mark.parametrize(
    ("num", "expected"), [(1, (Verdict.PASSED, None)), (2, (Verdict.FAILED, "the verifier died, twice"))]
)
def test_a_case_whose_process_was_killed_from_outside_is_tried_once_more(
    num: int, expected: tuple[Verdict, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examiner, "examine", _killed(Examiner.examine, num))
    with closing(Judge(num_processes=1, limit_s=60.0)) as judge:
        found = judge.examine(Case(_MATH, "1", "1"))
        assert (found.verdict, found.reason) == expected
        assert judge.examine(Case(_MATH, "1", "1")).verdict is Verdict.PASSED


def test_an_answer_whose_verifier_does_not_start_is_not_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Judge(num_processes=1, limit_s=60.0)) as judge:
        with monkeypatch.context() as slow:
            slow.setattr(judge_module, "Examiner", partial(Examiner, start_s=0.01))
            found = judge.examine(Case(_MATH, "1/2", "0.5"))
        assert found == Judgement(Verdict.UNVERIFIED, "the verifier could not be started: TimeoutError")
        with monkeypatch.context() as full:
            full.setattr(multiprocessing.get_context("spawn").Process, "start", _no_process)
            found = judge.examine(Case(_MATH, "1/2", "0.5"))
        assert found == Judgement(Verdict.UNVERIFIED, "the verifier could not be started: BlockingIOError")
        assert judge.examine(Case(_MATH, "1/2", "0.5")).verdict is Verdict.PASSED


def _no_process(process: object) -> None:
    raise BlockingIOError("fork: resource temporarily unavailable")


def test_many_cases_of_one_tenant_that_hang_hold_up_anothers_for_one_limit() -> None:
    judge = Judge(num_processes=1, limit_s=1.0)
    ended: list[str] = []
    for number in range(5):
        judge.hear(_HANGS, "a").add_done_callback(lambda _, name=f"a{number}": ended.append(name))
    judge.hear(Case(_MATH, "1", "1"), "b").add_done_callback(lambda _: ended.append("b"))
    judge.close()
    assert ended == ["a0", "b", "a1", "a2", "a3", "a4"]


def test_pure_cases_need_no_process() -> None:
    judge = Judge(num_processes=1)
    before = set(multiprocessing.active_children())
    cases = [Case({"name": "number"}, f"{i}.0", str(i)) for i in range(256)]
    assert all(judge.examine(case).verdict is Verdict.PASSED for case in cases)
    assert set(multiprocessing.active_children()) <= before
    judge.close()


def test_code_runs_only_where_the_operator_allows_it(judge: Judge) -> None:
    found = judge.examine(Case({"name": "python_tests", "tests": "assert True"}, "x = 1"))
    assert found.verdict is Verdict.UNVERIFIED
    assert "--allow-code" in (found.reason or "")
