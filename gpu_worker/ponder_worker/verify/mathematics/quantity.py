"""Compares quantities: numbers and formulas with units, percentages, and rounded decimals."""

from __future__ import annotations

import re
from fractions import Fraction

import sympy

from ponder.domain.verifier import Math
from ponder_worker.answers.numeral import Numeral, read_numeral
from ponder_worker.answers.unit import Unit, name_of, read_unit
from ponder_worker.answers.wrapping import SET_TEXT
from ponder_worker.verify.mathematics.formula import Unreadable, parse
from ponder_worker.verify.mathematics.formula_equality import are_equal
from ponder_worker.verify.mathematics.formula_value import rounds_to

_ENOUGH_DIGITS = 6
"""Significant digits that a decimal needs to stand for a longer number: 0.333333 for 1/3."""
_LONGEST_UNIT = 80
_AT_END = re.compile(
    rf" ?(?:{SET_TEXT}(?: ?\^ ?\{{? ?-?[1-9] ?\}}?)?|\^ ?(?:\{{ ?)?\\circ ?\}}?|%|(?<= )[A-Za-z]{{2,}}(?:\^[1-9])?)$"
)
_ANGLE_OF = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")


def same_quantity(found: Numeral, wanted: Numeral, spec: Math) -> bool:
    return _same_value(found, wanted, spec) and _same_unit(found.unit, wanted.unit, spec)


def same_formula(found: str, wanted: str, spec: Math) -> bool:
    """Compares two plain texts as formulas with units."""
    (body, unit), (its, its_unit) = split_unit(found), split_unit(wanted)
    if not _same_unit(unit, its_unit, spec):
        return False
    try:
        left, right = parse(body), parse(its)
    except Unreadable:
        return False
    return are_equal(left, right) or _is_rounded(body, right) or _is_rounded(its, left)


def is_formula(text: str) -> bool:
    """Returns whether all of a plain text but its unit can be read."""
    try:
        parse(split_unit(text)[0])
    except Unreadable:
        return False
    return True


def split_unit(text: str) -> tuple[str, Unit]:
    r"""Returns a text without the unit at its end, and the unit: `2\pi \text{ cm}^2`, `30^\circ`, `\sqrt{2} km`."""
    found = _AT_END.search(text[-_LONGEST_UNIT:])
    if found is None:
        return text, Unit()
    body, rest = text[: len(text) - len(found[0])].rstrip(), found[0].strip()
    if not body or body[-1] in "+-*/=<>,^_({[" or (rest[0].isalpha() and not name_of(rest.split("^")[0].strip())):
        return text, Unit()
    if rest.startswith("^") and _ANGLE_OF.search(body):
        return text, Unit()
    unit = read_unit(rest)
    return (text, Unit()) if unit is None or unit.scale > 1 else (body, unit)


def _same_unit(found: Unit, wanted: Unit, spec: Math) -> bool:
    """Returns whether the units fit. Either side may omit its unit, unless the option requires the reference's."""
    if spec.units == "ignored":
        return True
    if spec.units == "required" and wanted.is_there and not found.is_there:
        return False
    return found.fits(wanted)


def _is_rounded(text: str, exact: object) -> bool:
    """Returns whether the text is a decimal with enough digits to which the expression rounds."""
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
    """Returns whether a number that is no decimal rounds to the decimal."""
    if decimal.places is None or decimal.num_digits < _ENOUGH_DIGITS or exact.places is not None:
        return False
    return abs(decimal.value - exact.value) <= Fraction(1, 2 * 10**decimal.places)
