"""Mathematically equal. The caller sets a time limit."""

from __future__ import annotations

from ponder.domain.state import Verdict
from ponder.domain.verifier import Math
from ponder_worker.answers.writing import are_identical, plain
from ponder_worker.verify.case import Judgement
from ponder_worker.verify.mathematics.comparison import Comparison

_DIFFERENT = "the answer is not mathematically equal to the expected one"
_UNREADABLE = "the reference is no mathematics that can be read as a whole, and the answer is not the same text"


def examine(answer: str, reference: str, spec: Math | None = None) -> Judgement:
    """`unverified` where the reference cannot be read or the two cannot be compared; never for identical texts."""
    try:
        return _examine(answer, reference, spec or Math())
    except Exception as error:  # sympy raises whatever comes to its mind
        return Judgement(Verdict.UNVERIFIED, f"the two could not be compared ({type(error).__name__})")


def _examine(answer: str, reference: str, spec: Math) -> Judgement:
    if are_identical(answer, reference):
        return Judgement(Verdict.PASSED)
    comparison, found, wanted = Comparison(spec), plain(answer), plain(reference)
    if not wanted:
        return Judgement(Verdict.UNVERIFIED, _UNREADABLE)
    if comparison.same(found, wanted):
        return Judgement(Verdict.PASSED)
    return Judgement.of(False, _DIFFERENT) if comparison.reads(wanted) else Judgement(Verdict.UNVERIFIED, _UNREADABLE)
