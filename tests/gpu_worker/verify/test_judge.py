"""The judge: no case holds up or brings down another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

from ponder.domain.state import Verdict
from ponder_worker.verify import Case, Judge
from ponder_worker.verify.examiner import Examiner

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
    found = judge.examine_all(cases)
    assert [judgement.verdict.value for judgement in found] == ["passed", "failed", "failed", "passed"]
    assert "more than 3 s" in (found[1].reason or "")
    assert judge.examine(Case(_MATH, "1/2", "0.5")).verdict is Verdict.PASSED


def test_a_verifier_that_raises_fails_its_case_only(judge: Judge) -> None:
    bad = Case({"name": "json_schema", "schema": {"$ref": "#"}}, "1")  # is what it is, and so on
    found = judge.examine_all([bad, Case(_MATH, "4", "4")])
    assert [judgement.verdict.value for judgement in found] == ["failed", "passed"]
    assert "raised" in (found[0].reason or "")


def test_a_process_that_dies_fails_its_case_and_is_replaced() -> None:
    examiner = Examiner()
    assert examiner.pid is not None
    os.kill(examiner.pid, signal.SIGKILL)
    found = examiner.examine(Case(_MATH, "1", "1"), 5.0)
    assert found.verdict is Verdict.FAILED
    assert not examiner.is_alive


def test_pure_cases_need_no_process() -> None:
    judge = Judge(num_processes=1)
    before = set(multiprocessing.active_children())
    cases = [Case({"name": "number"}, f"{i}.0", str(i)) for i in range(256)]
    assert all(judgement.verdict is Verdict.PASSED for judgement in judge.examine_all(cases))
    assert set(multiprocessing.active_children()) <= before
    judge.close()


def test_it_is_called_like_a_function(judge: Judge) -> None:
    assert judge(None, "1", "1") is Verdict.UNVERIFIED
    assert judge({"name": "exact"}, "1", "1") is Verdict.PASSED
