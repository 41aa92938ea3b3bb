"""Passes an answer that is exactly the same number. Separators, currency, units and percent signs do not count."""

from __future__ import annotations

from fractions import Fraction

from ponder.domain.state import Verdict
from ponder.domain.verifier import Number
from ponder_worker.answers.equality import are_identical, number_of
from ponder_worker.answers.mark import of_reference
from ponder_worker.answers.numeral import read_european, read_lone_number
from ponder_worker.verify.case import Judgement

_BRACKETS = "()[] "
"""Removed from the ends of a number, `[[12]]` or `12)`. With a comma they would be around a tuple."""


def examine(answer: str, spec: Number, reference: str) -> Judgement:
    answer, reference = of_reference(answer), of_reference(reference)
    wanted = _value(reference)
    if wanted is None and are_identical(answer, reference):
        return Judgement(Verdict.PASSED)
    if wanted is None:
        return Judgement(Verdict.UNVERIFIED, "the reference is not a number")
    found = _value(answer)
    if found is None:
        return Judgement.of(False, "the answer is not a number")
    return Judgement.of(found == wanted, "the number is not the expected one")


def _value(text: str) -> Fraction | None:
    """Returns the only number of a text, which may stand among words."""
    if (numeral := number_of(text)) is not None:
        return numeral.value
    if "," not in text and (numeral := number_of(text.strip(_BRACKETS))) is not None:
        return numeral.value
    return read_european(text) or read_lone_number(text)
