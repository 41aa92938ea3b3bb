"""Reads a number exactly, in any of its writings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ponder_worker.answers.unit import Unit, read_unit, split_prefix
from ponder_worker.answers.wrapping import unset
from ponder_worker.answers.writing import plain

_LONGEST = 1_500
"""Characters. Exact arithmetic with more digits takes too much time."""
_LARGEST_EXPONENT = 4_000
_SIMPLE = re.compile(r"[-+]?[0-9]{1,18}")
_DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"10 ?\^ ?(?:\{ ?([-+]?[0-9]+) ?\}|([-+]?[0-9]+))"
_NUMERAL = re.compile(
    rf"(?P<sign>[-+]?) ?(?:{_POWER}"
    rf"|(?:(?P<whole>{_DIGITS}) ?)?\\frac ?(?:\{{ ?(?P<minus>-?) ?(?P<over>{_DECIMAL}) ?\}}|(?P<over1>[0-9]))"
    rf" ?(?:\{{ ?(?P<under>{_DECIMAL}) ?\}}|(?P<under1>[0-9]))"
    rf"|(?:(?P<whole2>{_DIGITS}) )?(?P<over2>{_DECIMAL}) ?/ ?(?P<under2>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[-+]?[0-9]+)(?![0-9.])| ?(?:\\times|\\cdot|\*|x) ?{_POWER})?)"
)
_EUROPEAN = re.compile(r"[-+]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?P<comma>,[0-9]+)?")
_AMONG_WORDS = re.compile(rf"-?{_DECIMAL}")
_MATHEMATICS = re.compile(r"[\\^_=+*/<>:|()\[\]{}]|[0-9][A-Za-z]|[A-Za-z][0-9]|(?<![A-Za-z])[b-zB-HJ-Z](?![A-Za-z])")
_NEGATIVE = re.compile(r"(?i:minus|negative) (?=[0-9.])")
_CHANGED = re.compile(
    r"(?i)\b(?:not|at least|at most|up to|(?:more|less|fewer|greater|smaller) than|(?:over|under|above|below) (?=[0-9])"
    r"|half|halves|thirds?|quarters?|tenths?|twice|double|triple|log|ln|sqrt|dozens?|pairs?|squared|cubed|factorial"
    r"|hundreds?|thousands?|millions?|billions?|trillions?)\b"
)
"""Words by which a text means another number than it writes, or no number."""
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\overline ?\{? ?([0-9]+) ?\}?")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number and its unit. The value is exact and does not count the unit.

    `places` are the digits behind the point of a decimal, and None for any other writing. `num_digits` are the
    significant digits of a decimal.
    """

    value: Fraction
    unit: Unit
    places: int | None = None
    num_digits: int = 0


def read_numeral(text: str) -> Numeral | None:
    """Returns the number that all of a text writes, with or without a unit, or None."""
    if _SIMPLE.fullmatch(text):
        return Numeral(Fraction(int(text)), Unit())
    if len(text) > _LONGEST:
        return None
    text = _unwrapped(plain(text))
    if (negative := _NEGATIVE.match(text)) is not None:
        text = "-" + text[negative.end() :]
    text, currency = split_prefix(text)
    text = _REPEATING.sub(_as_fraction, text) if "line" in text else text
    found = _NUMERAL.match(text)
    if found is None and currency == "" and text[:1] in ("-", "+"):  # -€5
        rest, currency = split_prefix(text[1:].lstrip())
        text = text[0] + rest
        found = _NUMERAL.match(text) if currency else None
    if found is None:
        return None
    unit = read_unit(text[found.end() :], is_attached=text[found.end() : found.end() + 1].isalpha())
    if unit is None or (currency and unit.name not in ("", currency) and not unit.is_rate):
        return None
    return _numeral(found, unit.in_currency(currency) if currency else unit)


def _as_fraction(found: re.Match[str]) -> str:
    r"""Returns the fraction of a repeating decimal: `\frac{15}{90}` for `0.1\overline{6}`."""
    whole, once, again = found.groups()
    zeros = 10 ** len(once)
    over = (int(whole + once) if whole + once else 0) * (10 ** len(again) - 1) + int(again)
    return rf"\frac{{{over}}}{{{(10 ** len(again) - 1) * zeros}}}"


def _unwrapped(text: str) -> str:
    r"""Returns the inside of `\text{13}`, `(-3)` and `{5}`."""
    if text.startswith("\\text"):
        text = unset(text)
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1 and "," not in text:
        text = text[1:-1].strip()
    return text


def read_lone_number(text: str) -> Fraction | None:
    """Returns the only number among words, `She makes $18 a day`, or None if there are more, or mathematics."""
    text = _NEGATIVE.sub("-", plain(text)) if len(text) <= _LONGEST else ""
    found = _AMONG_WORDS.findall(text)
    if len(found) != 1 or _MATHEMATICS.search(text) or _CHANGED.search(text):
        return None
    return _exact(found[0])


def read_european(text: str) -> Fraction | None:
    """Returns a number written with a decimal comma, `1000,99`, `0,5` or `1.234,56`, or None.

    A comma before three digits separates thousands, unless nothing or 0 stands before it.
    """
    text = split_prefix(plain(text))[0]
    found = _EUROPEAN.match(text) if len(text) <= _LONGEST else None
    if found is None or read_unit(text[found.end() :]) is None:
        return None
    text = found[0]
    comma, whole = found["comma"] or "", text[: found.start("comma")] if found["comma"] else text
    if len(comma) == 4 and "." not in whole and whole.lstrip("+-") != "0":
        return None
    if not comma and text.count(".") < 2:
        return None
    return Fraction(whole.replace(".", "") + comma.replace(",", "."))


def _numeral(found: re.Match[str], unit: Unit) -> Numeral | None:
    sign = -1 if found["sign"] == "-" else 1
    if found["decimal"] is not None:
        return _decimal(found, sign, unit)
    exponent = found[2] or found[3]
    if exponent is not None:
        return _scaled(Fraction(sign), exponent, unit)
    whole = found["whole"] or found["whole2"]
    over = _exact(found["over"] or found["over1"] or found["over2"])
    under = _exact(found["under"] or found["under1"] or found["under2"])
    if not under or (whole and (found["minus"] or over >= under)):
        return None
    value = (_exact(whole) if whole else 0) + over / under
    return Numeral(sign * (-value if found["minus"] else value), unit)


def _decimal(found: re.Match[str], sign: int, unit: Unit) -> Numeral | None:
    digits = found["decimal"].replace(",", "").replace(" ", "")
    exponent = found["e"] or found[15] or found[16]
    value = sign * _exact(digits)
    if exponent is not None:
        return _scaled(value, exponent, unit)
    if unit.scale > 1:
        return Numeral(value * unit.scale, unit)
    whole, point, decimals = digits.partition(".")
    num_digits = len((whole + decimals).lstrip("0"))
    return Numeral(value, unit, places=len(decimals) if point else None, num_digits=num_digits if point else 0)


def _scaled(value: Fraction, exponent: str, unit: Unit) -> Numeral | None:
    if len(exponent) > 5 or abs(int(exponent)) > _LARGEST_EXPONENT:
        return None
    return Numeral(value * Fraction(10) ** int(exponent), unit)


def _exact(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", "").rstrip(".") or "0")
