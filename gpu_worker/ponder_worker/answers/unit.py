"""Units and other words beside a number."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST = 80
"""Characters. The patterns for units are tried on no more."""
_PERCENT = re.compile(r"^(?:%|(?:percent|per cent|percentage|pct)\b\.?)(?: points?\b)?")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}|\\text")
_DEGREE = re.compile(r"\^ ?(?:\{ ?)?\\circ ?\}?")
_POWER = re.compile(r"\^ ?\{? ?(-?[1-9]) ?\}?")
_LETTER = r"[A-Za-z\u00c0-\uffef]"
_WORDS = re.compile(rf"(?:{_LETTER}+'?|[€£¥₹₩₽₺₫₱])(?:[ ./'\-·]*(?:{_LETTER}+|\^-?[1-9]|[()]))*[ .)]*")
_WORD = re.compile(rf"(?:{_LETTER}|[€£])+|\^-?[1-9]|/")
_AT_END = re.compile(
    r" ?(?:\\text ?\{[^{}]*\}(?: ?\^ ?\{? ?-?[1-9] ?\}?)?|\^ ?(?:\{ ?)?\\circ ?\}?|%|(?<= )[A-Za-z]{2,}(?:\^[1-9])?)$"
)
_ANGLE_OF = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_PREFIX = re.compile(r"(?:[€£¥₹₩₽₺₫₱]|(?:USD|EUR|GBP|JPY|CNY|INR|US|Rs\.?|RMB)(?![a-z])) ?")
_NO_UNITS = frozenset(
    ("and", "or", "to", "pi", "sin", "cos", "tan", "log", "ln", "exp", "sqrt", "mod", "if", "is", "not")
)
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LETTERS = frozenset("gmsLVJNWKAhCF")
_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "s": "second sec", "min": "minute",
    "h": "hour hr", "day": "", "week": "wk", "month": "", "year": "yr", "mg": "milligram", "g": "gram gm",
    "kg": "kilogram", "lb": "", "oz": "ounce", "ml": "milliliter millilitre mL", "L": "liter litre l", "gal": "gallon",
    "mph": "", "degree": "deg", "dollar": "USD", "cent": "", "€": "euro EUR", "£": "GBP", "¥": "yen JPY yuan CNY RMB",
    "J": "joule", "W": "watt", "V": "volt", "N": "newton", "K": "kelvin", "Hz": "hertz", "eV": "", "rad": "radian",
    "Pa": "pascal", "per": "/", "^2": "square sq squared", "^3": "cubic cu cubed",
}  # fmt: skip
_KNOWN = {word: name for name, others in _NAMES.items() for word in (name, *others.split())}


@dataclass(frozen=True, slots=True)
class Unit:
    """name: the same for all writings of a known unit; empty where there is none, or words that name no unit."""

    name: str = ""
    is_there: bool = False
    is_percent: bool = False
    scale: int = 1


def read_unit(text: str, *, is_attached: bool = False) -> Unit | None:
    """What stands behind a number, in plain writing; None if it belongs to the mathematics.

    is_attached: nothing stands between them, so that `5x` is a product. Only known units count then.
    """
    text = text.strip()
    if not text:
        return Unit()
    if len(text) > _LONGEST:
        return None
    is_text = text.startswith((r"\text", "^"))
    text = _TEXT.sub(r" \1 ", _DEGREE.sub(" degree ", text)).strip()
    percent = _PERCENT.match(text)
    text = text[percent.end() :].strip() if percent else text
    if text and _WORDS.fullmatch(text := _POWER.sub(r"^\1", text)) is None:
        return None
    words = _WORD.findall(text)
    if words and not _is_unit(words[0], is_attached=is_attached, is_text=is_text or percent is not None):
        return None
    scale = _SCALES.get(words[0].lower(), 1) if words else 1
    return Unit(_name(words[scale > 1 :]), bool(words) or percent is not None, percent is not None, scale)


def split_prefix(text: str) -> tuple[str, str]:
    """-> (the text without a currency in front, the name of that currency)."""
    found = _PREFIX.match(text)
    if found is None:
        return text, ""
    return text[found.end() :], _KNOWN.get(found[0].strip(), "")


def _is_unit(word: str, *, is_attached: bool, is_text: bool) -> bool:
    r"""A letter may be a variable, and `2\mathbf{i}` a vector."""
    if word.lower() in _NO_UNITS:
        return False
    if word in _LETTERS or _known(word):
        return True
    return len(word) > 1 if is_text else len(word) > 2 and not is_attached


def _known(word: str) -> str:
    """The name of a unit, in the plural too."""
    return _KNOWN.get(word) or _KNOWN.get(word.lower()) or _KNOWN.get(word.lower().rstrip("s")) or ""


def _name(words: list[str]) -> str:
    """Sorted, so that `square cm` and `cm^2` have one; empty as soon as a word is unknown."""
    names = [word if word.startswith("^") else _known(word) for word in words]
    return " ".join(sorted(names)) if all(names) else ""


def split_unit(text: str) -> tuple[str, Unit]:
    r"""-> (the plain text without the unit at its end, the unit): `2\pi \text{ cm}^2`, `30^\circ`, `\sqrt{2} km`."""
    found = _AT_END.search(text[-_LONGEST:])
    if found is None:
        return text, Unit()
    body, rest = text[: len(text) - len(found[0])].rstrip(), found[0].strip()
    if not body or body[-1] in "+-*/=<>,^_({[" or (rest[0].isalpha() and not _known(rest.split("^")[0].strip())):
        return text, Unit()
    if rest.startswith("^") and _ANGLE_OF.search(body):
        return text, Unit()
    unit = read_unit(rest)
    return (text, Unit()) if unit is None or unit.scale > 1 else (body, unit)
