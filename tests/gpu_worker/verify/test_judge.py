"""The judge: no case holds up or brings down another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from unittest.mock import Mock

import pytest

from ponder.domain.state import Verdict
from ponder_worker.verify import Case, Judge, Judgement
from ponder_worker.verify.examine import Examiner
from ponder_worker.verify.sandbox.fork_server import ForkServer

_MATH = {"name": "math"}
_SCHEMA = {"name": "json_schema", "schema": {"type": "integer"}}
_EVIL = {"name": "json_schema", "schema": {"pattern": "^(a+)+$"}}
"""A case whose pattern backtracks for ever and holds the interpreter, so that no alarm can end it."""
_HANGS = Case(_EVIL, '"' + "a" * 60 + '!"')


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(num_processes=2, limit_s=3.0)
    yield judge
    judge.close()


def test_one_that_hangs_fails_alone_and_the_pool_heals(judge: Judge) -> None:
    cases = [Case(_MATH, "1/2", "0.5"), _HANGS, Case(_MATH, "2", "3"), Case({"name": "exact"}, "1", "1")]
    found = [future.result() for future in [judge.submit(case) for case in cases]]
    assert [judgement.verdict.value for judgement in found] == ["passed", "failed", "failed", "passed"]
    assert "more than 3 s" in (found[1].reason or "")
    assert judge.examine(Case(_MATH, "1/2", "0.5")).verdict is Verdict.PASSED


def test_a_verifier_that_raises_fails_its_case_only(judge: Judge) -> None:
    bad = Case({"name": "json_schema", "schema": {"$ref": "#"}}, "1")  # is what it is, and so on
    found = judge.examine(bad)
    assert found.verdict is Verdict.FAILED
    assert "raised" in (found.reason or "")
    assert judge.examine(Case(_MATH, "4", "4")).verdict is Verdict.PASSED


def _killed(examine: Callable[[Examiner, Case, float], Judgement], num: int) -> Callable[..., Judgement]:
    """Kills the process the first `num` times that it is about to examine."""
    killed: list[int] = []

    def examine_killed(self: Examiner, case: Case, limit_s: float) -> Judgement:
        if len(killed) < num:
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)
        return examine(self, case, limit_s)

    return examine_killed


@pytest.mark.parametrize(
    ("case", "num", "expected"),
    [
        (Case(_MATH, "1", "1"), 1, (Verdict.PASSED, None)),
        (Case(_MATH, "1", "1"), 2, (Verdict.UNVERIFIED, "the verifier died, twice")),
        (Case(_SCHEMA, "1"), 1, (Verdict.PASSED, None)),
        (Case(_SCHEMA, "1"), 2, (Verdict.FAILED, "the verifier died, twice")),
    ],
)
def test_a_case_whose_process_was_killed_from_outside_is_tried_once_more(
    case: Case, num: int, expected: tuple[Verdict, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examiner, "examine", _killed(Examiner.examine, num))
    with closing(Judge(num_processes=1, limit_s=60.0)) as judge:
        found = judge.examine(case)
        assert (found.verdict, found.reason) == expected
        assert judge.examine(case).verdict is Verdict.PASSED


def test_a_case_is_not_given_up_because_its_process_had_to_wait_for_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examine = Examiner.examine

    def examine_stopped(self: Examiner, case: Case, limit_s: float) -> Judgement:
        os.kill(self.pid, signal.SIGSTOP)
        threading.Timer(1.5 * limit_s, os.kill, (self.pid, signal.SIGCONT)).start()
        return examine(self, case, limit_s)

    with closing(Judge(num_processes=1, limit_s=1.0)) as judge:
        monkeypatch.setattr(Examiner, "examine", examine_stopped)
        assert judge.examine(Case(_SCHEMA, "1")).verdict is Verdict.PASSED


def test_a_process_that_waits_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    examine = Examiner.examine

    def examine_stopped(self: Examiner, case: Case, limit_s: float) -> Judgement:
        os.kill(self.pid, signal.SIGSTOP)
        return examine(self, case, limit_s)

    with closing(Judge(num_processes=1, limit_s=0.5)) as judge:
        monkeypatch.setattr(Examiner, "examine", examine_stopped)
        assert judge.examine(Case(_MATH, "1", "1")).reason == "the verifier took more than 0.5 s"


def test_a_comparison_without_an_end_is_neither_right_nor_wrong(judge: Judge) -> None:
    """Only the limit of the process ends it, because no alarm interrupts an operation on large integers."""
    for answer, reference in [(r"\prod_{k=1}^{10000000} k", "5"), ("1", "9^{9^{9^{9}}}")]:
        found = judge.examine(Case(_MATH, f"${answer}$", f"${reference}$"))
        assert (found.verdict, found.reason) == (Verdict.UNVERIFIED, "the verifier took more than 3 s")


def test_an_answer_whose_verifier_does_not_start_is_not_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Judge(num_processes=1, limit_s=60.0)) as judge:
        for error in (TimeoutError, BlockingIOError):
            with monkeypatch.context() as broken:
                broken.setattr(ForkServer, "fork", Mock(side_effect=error))
                found = judge.examine(Case(_MATH, "1/2", "0.5"))
            assert found == Judgement(Verdict.UNVERIFIED, f"the verifier could not be started: {error.__name__}")
        assert judge.examine(Case(_MATH, "1/2", "0.5")).verdict is Verdict.PASSED


def test_many_cases_of_one_tenant_that_hang_hold_up_anothers_for_one_limit() -> None:
    judge = Judge(num_processes=1, limit_s=1.0)
    ended: list[str] = []
    for number in range(5):
        judge.submit(_HANGS, "a").add_done_callback(lambda _, name=f"a{number}": ended.append(name))
    judge.submit(Case(_MATH, "1", "1"), "b").add_done_callback(lambda _: ended.append("b"))
    judge.close()
    assert ended == ["a0", "b", "a1", "a2", "a3", "a4"]


def test_cases_of_one_tenant_that_hang_hold_up_many_of_anothers_for_one_limit() -> None:
    """Owners get equal time, so the other's eight cases come before a second one that hangs."""
    judge = Judge(num_processes=1, limit_s=1.0)
    ended: list[str] = []
    for _ in range(3):
        judge.submit(_HANGS, "a").add_done_callback(lambda _: ended.append("a"))
    for number in range(8):
        judge.submit(Case(_SCHEMA, str(number)), "b").add_done_callback(lambda _: ended.append("b"))
    judge.close()
    assert "".join(ended) == "a" + 8 * "b" + "aa"


def test_one_tenants_cases_that_hang_never_hold_all_processes() -> None:
    with closing(Judge(num_processes=3, limit_s=8.0)) as judge:
        assert judge.submit(Case(_SCHEMA, "1"), "b").result().verdict is Verdict.PASSED  # once it has started
        hanging = [judge.submit(_HANGS, "a") for _ in range(4)]
        found = [judge.submit(Case(_SCHEMA, str(number)), "b") for number in range(8)]
        assert all(future.result().verdict is Verdict.PASSED for future in found)
        assert not any(future.done() for future in hanging)
        assert [future.cancel() for future in hanging].count(False) <= 2  # those that are being examined


def test_pure_cases_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ForkServer, "fork", Mock(side_effect=AssertionError("asked for")))
    with closing(Judge(num_processes=1)) as judge:
        cases = [Case({"name": "number"}, f"{i}.0", str(i)) for i in range(256)]
        assert all(judge.examine(case).verdict is Verdict.PASSED for case in cases)


def test_what_one_verifier_alone_imports_no_other_waits_for() -> None:
    program = "import sys, ponder_worker.verify.examine; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_code_runs_only_where_the_operator_allows_it(judge: Judge) -> None:
    found = judge.examine(Case({"name": "python_tests", "tests": "assert True"}, "x = 1"))
    assert found.verdict is Verdict.UNVERIFIED
    assert "--allow-code" in (found.reason or "")
