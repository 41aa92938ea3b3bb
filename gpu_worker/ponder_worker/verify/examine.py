"""One case, here and now. May hang or take all memory where `Judge` would have a process of its own for it."""

from __future__ import annotations

from ponder.domain.state import Verdict
from ponder_worker.search.answer import of_reference
from ponder_worker.verify import exact, json_schema, number
from ponder_worker.verify.case import Case, Judgement

PURE = frozenset({"exact", "number"})
"""Verifiers that always return, in microseconds."""


def examine(case: Case) -> Judgement:
    """Raises what the verifier raises."""
    if case.verifier is None:
        return Judgement(Verdict.UNVERIFIED, "no verifier")
    name = case.verifier["name"]
    if case.answer is None:
        return Judgement(Verdict.FAILED, "there is no answer")
    if name == "json_schema":
        return json_schema.examine(case.answer, case.verifier.get("schema", case.verifier.get("json_schema", {})))
    if case.reference is None:
        return Judgement(Verdict.UNVERIFIED, "no reference")
    reference = of_reference(case.reference)
    match name:
        case "exact":
            return exact.examine(case.answer, reference)
        case "number":
            return number.examine(case.answer, reference)
        case "math":
            from ponder_worker.verify import math  # brings sympy

            return math.examine(case.answer, reference)
    return Judgement(Verdict.UNVERIFIED, f"this worker knows no verifier {name!r}")
