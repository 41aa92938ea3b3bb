"""One case, here and now. May hang or take all memory where `Judge` would have a process of its own for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ponder.domain.state import Verdict
from ponder_worker.search.answer import of_reference
from ponder_worker.verify import exact, json_schema, number
from ponder_worker.verify.case import Case, Judgement

_PURE = frozenset({"exact", "number"})
_WITHOUT_REFERENCE = frozenset({"json_schema"})


def is_pure(case: Case) -> bool:
    """Whether its verifier always returns, in microseconds."""
    if case.verifier is None or case.answer is None:
        return True
    name = case.verifier.get("name")
    return name in _PURE or (name not in _WITHOUT_REFERENCE and case.reference is None)


def examine(case: Case) -> Judgement:
    """Raises what the verifier raises."""
    if case.verifier is None:
        return Judgement(Verdict.UNVERIFIED, "no verifier")
    if case.answer is None:
        return Judgement(Verdict.FAILED, "there is no answer")
    name = case.verifier["name"]
    if name not in _WITHOUT_REFERENCE and case.reference is None:
        return Judgement(Verdict.UNVERIFIED, "no reference")
    return _examine(name, case.verifier, case.answer, of_reference(case.reference or ""))


def _examine(name: str, verifier: Mapping[str, Any], answer: str, reference: str) -> Judgement:
    match name:
        case "exact":
            return exact.examine(answer, reference)
        case "number":
            return number.examine(answer, reference)
        case "json_schema":
            return json_schema.examine(answer, verifier.get("schema", verifier.get("json_schema", {})))
        case "math":
            from ponder_worker.verify import math  # brings sympy

            return math.examine(answer, reference)
    return Judgement(Verdict.UNVERIFIED, f"this worker knows no verifier {name!r}")
