"""Equal as numbers; thousands separators, currency and percent signs are ignored."""

from __future__ import annotations

from fractions import Fraction

from ponder_worker.search.answer import as_number
from ponder_worker.verify.case import Judgement


def examine(answer: str, reference: str) -> Judgement:
    found, wanted = _value(answer), _value(reference)
    if found is None or wanted is None:
        return Judgement.of(False, "the answer is no number" if found is None else "the reference is no number")
    return Judgement.of(found == wanted, "the number is not the expected one")


def _value(text: str) -> Fraction | None:
    """`a/b` is a number too."""
    parts = [as_number(part) for part in text.split("/")]
    match parts:
        case [whole] if whole is not None:
            return Fraction(whole)
        case [over, under] if over is not None and under:
            return Fraction(over) / Fraction(under)
    return None
