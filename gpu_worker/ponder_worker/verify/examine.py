"""Examines one case, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from ponder.domain.state import Verdict
from ponder.domain.verifier import VERIFIER_SPECS, Math
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.sandbox.fork_server import ForkServer, answers_within
from ponder_worker.verify.verifiers import choice, contains, exact, json_schema, number, python_tests, regex

_LONG = 2_000
"""Characters. Reading more may take long, and would hold the interpreter that the worker itself needs."""
_MEMORY_BYTES = 4 << 30
_MATH = "ponder_worker.verify.verifiers.math"


def _math(answer: str, spec: Math, reference: str) -> Judgement:
    from ponder_worker.verify.verifiers import math  # brings sympy, which takes seconds to import

    return math.examine(answer, spec, reference)


def _judge(answer: str, spec: object, reference: str) -> Judgement:
    return Judgement(Verdict.UNVERIFIED, "the judge is a model, which the engine process asks")


@dataclass(frozen=True, slots=True)
class Row:
    """One verifier. `examine` takes the answer, the spec and the reference, which is empty where there is none.

    A pure verifier always returns, and soon. `slow_import` is a module that this verifier alone needs.
    """

    examine: Callable[[str, Any, str], Judgement]
    is_pure: bool = False
    slow_import: str | None = None


VERIFIERS = {
    "exact": Row(exact.examine, is_pure=True),
    "number": Row(number.examine, is_pure=True),
    "math": Row(_math, slow_import=_MATH),
    "choice": Row(choice.examine, is_pure=True),
    "json_schema": Row(json_schema.examine),
    "regex": Row(regex.examine),
    "contains": Row(contains.examine, is_pure=True),
    "python_tests": Row(python_tests.examine),
    "judge": Row(_judge, is_pure=True),
}


def is_pure(case: Case) -> bool:
    """Returns whether examining a case always ends, and soon."""
    try:
        spec = case.spec
    except ValueError:
        return True
    if spec is None or case.answer is None or (spec.sees_reference and case.reference is None):
        return True
    return VERIFIERS[spec.name].is_pure and len(case.answer) + len(case.reference or "") < _LONG


def runs_code(case: Case) -> bool:
    """Returns whether examining a case runs what the model wrote. Accepts a spec that is not valid."""
    spec = VERIFIER_SPECS.get(str(case.verifier.get("name"))) if case.verifier is not None else None
    return spec is not None and spec.runs_code


def examine(case: Case) -> Judgement:
    """Raises whatever the verifier raises, and pydantic's ValidationError for a wrong spec."""
    spec = case.spec
    if spec is None:
        unknown = f"this worker knows no verifier {case.verifier.get('name')!r}" if case.verifier else "no verifier"
        return Judgement(Verdict.UNVERIFIED, unknown)
    if case.answer is None:
        return Judgement(Verdict.FAILED, "there is no answer")
    if spec.sees_reference and case.reference is None:
        return Judgement(Verdict.UNVERIFIED, "no reference")
    return VERIFIERS[spec.name].examine(case.answer, spec, case.reference or "")


def unfinished(case: Case, reason: str) -> Judgement:
    """Returns the judgement of a case whose verifier did not finish.

    An answer that was not compared is neither right nor wrong. One that a pattern, a schema or a test of the user's
    cannot accept in time is not accepted.
    """
    is_comparison = case.spec is not None and case.spec.sees_reference
    return Judgement(Verdict.UNVERIFIED if is_comparison else Verdict.FAILED, reason)


class ExaminerDied(Exception):
    """The process ended without an answer: it was killed from outside, or the case brought it down."""


class Examiner:
    """Controls one such process. After a case that did not end in time, the next one needs a new examiner."""

    def __init__(self, server: ForkServer) -> None:
        """Takes a server that forks `live`. Raises OSError like `ForkServer.fork`."""
        self._server = server
        self.pid, self._pipe = server.fork()
        self._is_usable = True

    @property
    def is_alive(self) -> bool:
        """Whether it can take a case. Between two cases the pipe has something to read only after the end."""
        return self._is_usable and not self._pipe.poll()

    def examine(self, case: Case, limit_s: float) -> Judgement:
        """Returns within the limit of processor time, or three times that by the clock, whatever the verifier does.

        The process may be dead afterwards. Raises ExaminerDied.
        """
        data = json.dumps({"verifier": case.verifier, "answer": case.answer, "reference": case.reference})
        try:
            self._pipe.send_bytes(data.encode())
            found = json.loads(self._pipe.recv_bytes()) if answers_within(self._pipe, self.pid, limit_s) else None
        except (EOFError, OSError):
            self.close()
            raise ExaminerDied from None
        if found is None:
            self.close()
            return unfinished(case, f"the verifier took more than {limit_s:g} s")
        return Judgement(Verdict(found["verdict"]), found["reason"])

    def close(self) -> None:
        if self._is_usable:
            self._is_usable = False
            self._server.end(self.pid)
            self._pipe.close()


class ExaminerSlot:
    """Holds the examiner of one thread, or none, and replaces one that died."""

    def __init__(self, server: ForkServer, limit_s: float) -> None:
        self._server = server
        self._limit_s = limit_s
        self._examiner: Examiner | None = None

    def examine(self, case: Case) -> Judgement:
        """Tries a case twice, because somebody outside may have killed the process, or taken the memory for it."""
        try:
            with contextlib.suppress(ExaminerDied, OSError):
                return self._occupied().examine(case, self._limit_s)
            return self._occupied().examine(case, self._limit_s)
        except ExaminerDied:
            return unfinished(case, "the verifier died, twice")
        except Exception as error:
            return Judgement(Verdict.UNVERIFIED, f"the verifier could not be started: {type(error).__name__}")

    def _occupied(self) -> Examiner:
        if self._examiner is None or not self._examiner.is_alive:
            if self._examiner is not None:
                self._examiner.close()
            self._examiner = None
            self._examiner = Examiner(self._server)
        return self._examiner


def live(pipe: Connection) -> None:
    """Examines cases from a pipe until its other end is closed."""
    logging.disable()  # libraries warn about text that they cannot read, and quote it
    termination = _Termination()
    signal.signal(signal.SIGTERM, termination.ring)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with contextlib.suppress(EOFError, OSError):
        while True:
            case = Case(**json.loads(pipe.recv_bytes()))
            termination.is_busy = True
            pipe.send_bytes(json.dumps(_examine(case)).encode())
            termination.is_busy = False


class _Termination:
    """Ends the process on SIGTERM unless it is busy, because a signal to the group must not cost a verdict."""

    is_busy = False

    def ring(self, number: int, frame: FrameType | None) -> None:
        if not self.is_busy:
            os._exit(0)


def _examine(case: Case) -> dict[str, str | None]:
    try:
        found = examine(case)
    except Exception as error:
        found = unfinished(case, f"the verifier raised {type(error).__name__}")
    return {"verdict": found.verdict.value, "reason": found.reason}
