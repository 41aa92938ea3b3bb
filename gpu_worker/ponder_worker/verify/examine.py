"""One case, here and now. May hang or take all memory where `Judge` would have a process of its own for it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ponder.domain.state import Verdict
from ponder.domain.verifier import sees_reference
from ponder_worker.answers.extraction import of_reference
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.verifiers import choice, contains, exact, json_schema, number, python_tests, regex

_PURE = frozenset({"exact", "number", "choice", "contains"})
IMPORTS = {"math": "ponder_worker.verify.verifiers.math"}
"""Modules that one verifier alone needs and that take long to import: the parser brings sympy."""
_MATH_LIMIT_S = 5.0
_LONG = 2_000
"""Characters. What reads more may take long, and the interpreter that the worker itself needs."""


def is_pure(case: Case) -> bool:
    """Whether its verifier always returns, and soon."""
    try:
        spec = case.spec
    except ValueError:
        return True
    if spec is None or case.answer is None or (sees_reference(spec) and case.reference is None):
        return True
    return spec.name in _PURE and len(case.answer) + len(case.reference or "") < _LONG


def runs_code(case: Case) -> bool:
    return case.verifier is not None and case.verifier.get("name") == "python_tests"


def examine(case: Case) -> Judgement:
    """Raises what the verifier raises."""
    spec = case.spec
    if spec is None:
        unknown = f"this worker knows no verifier {case.verifier.get('name')!r}" if case.verifier else "no verifier"
        return Judgement(Verdict.UNVERIFIED, unknown)
    if case.answer is None:
        return Judgement(Verdict.FAILED, "there is no answer")
    if sees_reference(spec) and case.reference is None:
        return Judgement(Verdict.UNVERIFIED, "no reference")
    return _VERIFIERS[spec.name](case.answer, spec, case.reference or "")


def unfinished(case: Case, reason: str) -> Judgement:
    """What a case is whose verifier came to no end: an answer that was not compared is neither right nor wrong; one
    that a pattern, a schema or a test cannot accept in time is not accepted.
    """
    is_comparison = case.spec is not None and sees_reference(case.spec)
    return Judgement(Verdict.UNVERIFIED if is_comparison else Verdict.FAILED, reason)


def _math(answer: str, spec: Any, reference: str) -> Judgement:
    from ponder_worker.verify.verifiers import math

    try:
        with _within(_MATH_LIMIT_S):
            return math.examine(of_reference(answer), of_reference(reference), spec)
    except _TookTooLong:
        return Judgement(Verdict.UNVERIFIED, f"the comparison took too long: more than {_MATH_LIMIT_S:g} s")


class _TookTooLong(BaseException):
    """No Exception: libraries take those for answers that cannot be read."""


@contextlib.contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """Raises _TookTooLong in the body. In a main thread only, because it is an alarm."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_VERIFIERS: dict[str, Callable[[str, Any, str], Judgement]] = {
    "exact": lambda answer, spec, reference: exact.examine(answer, of_reference(reference)),
    "number": lambda answer, spec, reference: number.examine(of_reference(answer), of_reference(reference)),
    "math": _math,
    "choice": lambda answer, spec, reference: choice.examine(answer, reference),
    "json_schema": lambda answer, spec, reference: json_schema.examine(answer, spec.json_schema),
    "regex": lambda answer, spec, reference: regex.examine(answer, spec),
    "contains": lambda answer, spec, reference: contains.examine(answer, spec),
    "python_tests": python_tests.examine,
}
