"""When two quantities are equal: numbers with units and percent signs, and decimals that stand for longer numbers."""

from __future__ import annotations

from fractions import Fraction

import sympy

from ponder.domain.verifier import Math
from ponder_worker.answers.numeral import Numeral, read_numeral
from ponder_worker.answers.unit import Unit
from ponder_worker.verify.expression import rounds_to

_ENOUGH_DIGITS = 6
"""Significant ones that a decimal must have to stand for a number that has more: 0.333333 for 1/3."""


def same_quantity(found: Numeral, wanted: Numeral, spec: Math) -> bool:
    return _same_value(found, wanted, spec) and same_unit(found.unit, wanted.unit, spec)


def same_unit(found: Unit, wanted: Unit, spec: Math) -> bool:
    """Where one of them writes none it may be any, unless the verifier's option requires it."""
    if spec.units == "ignored":
        return True
    if spec.units == "required" and wanted.is_there and not found.is_there:
        return False
    return found.fits(wanted)


def is_rounded(text: str, exact: object) -> bool:
    """Whether the text is a decimal of enough digits that an expression comes to when it is rounded."""
    decimal = read_numeral(text)
    if decimal is None or decimal.places is None or decimal.num_digits < _ENOUGH_DIGITS:
        return False
    return rounds_to(exact, sympy.Rational(decimal.value.numerator, decimal.value.denominator), decimal.places)


def _same_value(found: Numeral, wanted: Numeral, spec: Math) -> bool:
    if spec.percent != "number" and found.unit.is_percent != wanted.unit.is_percent:
        is_same = _share(found) == _share(wanted)
        if is_same or spec.percent == "fraction":
            return is_same
    return found.value == wanted.value or _rounds(found, wanted) or _rounds(wanted, found)


def _share(numeral: Numeral) -> Fraction:
    return numeral.value / 100 if numeral.unit.is_percent else numeral.value


def _rounds(decimal: Numeral, exact: Numeral) -> bool:
    """Of a fraction that has no end as a decimal."""
    if decimal.places is None or decimal.num_digits < _ENOUGH_DIGITS or exact.places is not None:
        return False
    return abs(decimal.value - exact.value) <= Fraction(1, 2 * 10**decimal.places)
