"""One case, here and now. May hang or take all memory where `Judge` would have a process of its own for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ponder.domain.state import Verdict
from ponder.domain.verifier import sees_reference
from ponder_worker.answers.extraction import of_reference
from ponder_worker.verify import choice, contains, exact, json_schema, number, python_tests, regex
from ponder_worker.verify.case import Case, Judgement

_PURE = frozenset({"exact", "number", "choice", "contains"})
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


def _math(answer: str, spec: Any, reference: str) -> Judgement:
    from ponder_worker.verify import math  # brings sympy

    return math.examine(of_reference(answer), of_reference(reference), spec)


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
