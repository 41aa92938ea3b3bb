"""Examines one case, in this process. May hang or take all memory where `Judge` would use a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ponder.domain.state import Verdict
from ponder.domain.verifier import Math, sees_reference
from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.verifiers import choice, contains, exact, json_schema, number, python_tests, regex

_LONG = 2_000
"""Characters. Reading more may take long, and would hold the interpreter that the worker itself needs."""
_MATH = "ponder_worker.verify.verifiers.math"


def _math(answer: str, spec: Math, reference: str) -> Judgement:
    from ponder_worker.verify.verifiers import math  # brings sympy, which takes seconds to import

    return math.examine(answer, spec, reference)


@dataclass(frozen=True, slots=True)
class Row:
    """One verifier. `examine` takes the answer, the spec and the reference, which is empty where there is none.

    A pure verifier always returns, and soon. `slow_import` is a module that this verifier alone needs.
    """

    examine: Callable[[str, Any, str], Judgement]
    is_pure: bool = False
    runs_code: bool = False
    slow_import: str | None = None


VERIFIERS = {
    "exact": Row(exact.examine, is_pure=True),
    "number": Row(number.examine, is_pure=True),
    "math": Row(_math, slow_import=_MATH),
    "choice": Row(choice.examine, is_pure=True),
    "json_schema": Row(json_schema.examine),
    "regex": Row(regex.examine),
    "contains": Row(contains.examine, is_pure=True),
    "python_tests": Row(python_tests.examine, runs_code=True),
}


def is_pure(case: Case) -> bool:
    """Returns whether examining a case always ends, and soon."""
    try:
        spec = case.spec
    except ValueError:
        return True
    if spec is None or case.answer is None or (sees_reference(spec) and case.reference is None):
        return True
    return VERIFIERS[spec.name].is_pure and len(case.answer) + len(case.reference or "") < _LONG


def runs_code(case: Case) -> bool:
    """Returns whether examining a case runs what the model wrote. Accepts a spec that is not valid."""
    row = VERIFIERS.get(str(case.verifier.get("name"))) if case.verifier is not None else None
    return row is not None and row.runs_code


def examine(case: Case) -> Judgement:
    """Raises whatever the verifier raises, and pydantic's ValidationError for a wrong spec."""
    spec = case.spec
    if spec is None:
        unknown = f"this worker knows no verifier {case.verifier.get('name')!r}" if case.verifier else "no verifier"
        return Judgement(Verdict.UNVERIFIED, unknown)
    if case.answer is None:
        return Judgement(Verdict.FAILED, "there is no answer")
    if sees_reference(spec) and case.reference is None:
        return Judgement(Verdict.UNVERIFIED, "no reference")
    return VERIFIERS[spec.name].examine(case.answer, spec, case.reference or "")


def unfinished(case: Case, reason: str) -> Judgement:
    """Returns the judgement of a case whose verifier did not finish.

    An answer that was not compared is neither right nor wrong. One that a pattern, a schema or a test of the user's
    cannot accept in time is not accepted.
    """
    is_comparison = case.spec is not None and sees_reference(case.spec)
    return Judgement(Verdict.UNVERIFIED if is_comparison else Verdict.FAILED, reason)
