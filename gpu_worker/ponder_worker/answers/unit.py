"""Reads units and other words beside a number."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from ponder_worker.answers.wrapping import unset

_LONGEST = 80
"""Characters that the patterns for units are tried on."""
_SHORT = 3
"""Characters of an abbreviation or of a word such as `in`, which need not be a unit."""
_PERCENT = re.compile(r"^(?:%|(?:percent|per cent|percentage|pct)\b\.?)(?: points?\b)?")
_DEGREE = re.compile(r"\^ ?(?:\{ ?)?\\circ ?\}?")
_POWER = re.compile(r"\^ ?\{? ?(-?[1-9]) ?\}?")
_TIMES = re.compile(r"(?<=[A-Za-z0-9]) {0,2}\\cdot {0,2}(?=[A-Za-z])")
_LETTER = r"[A-Za-z\u00c0-\uffef]"
_WORDS = re.compile(rf"\(?(?:{_LETTER}+'?|[€£¥₹₩₽₺₫₱])(?:[ ./'\-·]*(?:{_LETTER}+|\^-?[1-9]|[()]))*[ .)]*")
_WORD = re.compile(rf"(?:{_LETTER}|[€£])+|\^-?[1-9]|/")
_PREFIX = re.compile(r"(?:[€£¥₹₩₽₺₫₱]|(?:USD|EUR|GBP|JPY|CNY|INR|US|Rs\.?|RMB)(?![a-z])) ?")
_NO_UNITS = frozenset((
    "and", "or", "to", "pi", "sin", "cos", "tan", "log", "ln", "exp", "sqrt", "mod", "if", "is", "not", "pair", "pairs",
    "half", "halves", "third", "thirds", "quarter", "quarters", "fifth", "fifths", "tenth", "tenths", "hundredth",
    "hundredths", "thousandth", "thousandths", "squared", "cubed", "factorial", "less", "more", "fewer", "below",
    "above", "loss", "times", "of", "than", "for", "plus", "minus", "over",
))  # fmt: skip
"""Words that change a number or join it to another if they stand right behind it."""
_TURNING = frozenset(["below", "down", "minus", "plus", "less", "loss", "times", "under", "or", "halves", "thirds"])
"""Words that change a number wherever they stand: `5 degrees below zero` is -5."""
_NO_MODIFIERS = frozenset((
    "a", "an", "the", "per", "every", "each", "of", "in", "and", "full", "whole", "total", "extra", "additional", "us",
    "this", "last", "next", "for", "by", "at", "old",
))  # fmt: skip
_PART_OF = re.compile(r"of (?:a|an|the|her|his|their|its|all) ")
"""Words that do not change a number: `3/4 of the pizza` is 3/4."""
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LETTERS = frozenset("gmsLVJNWKAhCF")
_NEVER_ATTACHED = frozenset("KAhCF")
"""Letters that are no unit right behind a digit: `12A` is a label, and `5K` five thousand."""
_PLURAL = re.compile(r"(?:e?s)*e?$")
_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "s": "second sec", "min": "minute",
    "h": "hour hr", "day": "", "week": "wk", "month": "", "year": "yr", "mg": "milligram", "g": "gram gm",
    "kg": "kilogram", "lb": "", "oz": "ounce", "ml": "milliliter millilitre mL", "L": "liter litre l", "gal": "gallon",
    "mph": "", "degree": "deg", "dollar": "USD", "cent": "",
    "€": "euro EUR", "£": "GBP", "¥": "", "yen": "JPY", "yuan": "CNY RMB",
    "C": "celsius", "F": "fahrenheit",
    "J": "joule", "W": "watt", "V": "volt", "N": "newton", "K": "kelvin", "Hz": "hertz", "eV": "", "rad": "radian",
    "Pa": "pascal", "per": "/", "^2": "square sq squared", "^3": "cubic cu cubed",
}  # fmt: skip
_BEFORE_UNIT = frozenset(("square", "sq", "cubic", "cu"))
_MAY_BE = {"pound": ("£", "lb"), "¥": ("yen", "yuan")}
_KNOWN = {word: name for name, others in _NAMES.items() for word in (name, *others.split())}


@dataclass(frozen=True, slots=True)
class Unit:
    """Everything beside a number. `name` is the same for all writings of a known unit, and empty for other words.

    `words` are all words, each word of a known unit by its name.
    """

    name: str = ""
    words: frozenset[str] = frozenset()
    is_there: bool = False
    is_percent: bool = False
    scale: int = 1

    def in_currency(self, name: str) -> Unit:
        """Returns the unit with a currency in front of the number: `$12 per hour` is `12 dollars per hour`."""
        joined = " ".join(sorted((name, *self.name.split()))) if self.is_rate else name
        return replace(self, name=joined, words=self.words | {name}, is_there=True)

    @property
    def is_rate(self) -> bool:
        """Whether it says per what the number counts: `$12` per hour."""
        return "^-" in self.name

    def fits(self, other: Unit) -> bool:
        """Returns whether two may be the same. Known units have the same name, and one side may have more other words.

        A percentage is no amount of anything: `20%` is not `20 dollars`.
        """
        if self.is_percent != other.is_percent and (other if self.is_percent else self).words:
            return False
        if self.name and other.name and not any(pair in _MAY_BE for pair in (self.name, other.name)):
            return self.name == other.name
        one, its = self.words, other.words
        for word, meanings in _MAY_BE.items():
            one = frozenset(word if word in its and name in meanings else name for name in one)
            its = frozenset(word if word in one and name in meanings else name for name in its)
        return one <= its or its <= one


def read_unit(text: str, *, is_attached: bool = False) -> Unit | None:
    """Returns the unit that a plain text behind a number names, or None if the text belongs to the mathematics.

    Behind an attached number, as in `5x`, only known units count. Other letters are factors.
    """
    text = text.strip()
    if not text:
        return Unit()
    if len(text) > _LONGEST:
        return None
    is_text = text.startswith((r"\text", "^"))
    text = unset(_DEGREE.sub(" degree ", text), around=" ").removeprefix(r"\text").strip()
    text = _TIMES.sub(" ", text)
    percent = _PERCENT.match(text)
    text = text[percent.end() :].strip() if percent else text
    text = _PART_OF.sub("", text, count=1) if text.startswith("of ") else text
    if text and _WORDS.fullmatch(text := _POWER.sub(r"^\1", text)) is None:
        return None
    words = _WORD.findall(text)
    if percent and words[:1] == ["of"]:
        del words[0]
    if words and not _are_unit(words, is_attached=is_attached, is_text=is_text or percent is not None):
        return None
    scale = _SCALES.get(words[0].lower(), 1) if words else 1
    of_unit = words[scale > 1 :]
    return Unit(_name(of_unit), _words(of_unit), bool(words) or percent is not None, percent is not None, scale)


def split_prefix(text: str) -> tuple[str, str]:
    """Returns the text without the currency in front, and the name of the currency."""
    found = _PREFIX.match(text)
    if found is None:
        return text, ""
    return text[found.end() :], _KNOWN.get(found[0].strip(), "")


def _are_unit(words: list[str], *, is_attached: bool, is_text: bool) -> bool:
    if any(word.lower() in _TURNING for word in words) or any(map(_is_variable, words[1:])):
        return False
    is_power = all(_named(word).startswith("^") for word in words)
    return not is_power and _is_unit(words[0], is_attached=is_attached, is_text=is_text)


def _is_unit(word: str, *, is_attached: bool, is_text: bool) -> bool:
    r"""Returns whether a word is a unit. A lone letter may be a variable, and `2\mathbf{i}` a vector."""
    if word.lower() in _NO_UNITS:
        return False
    if len(word) == 1:
        return (word in _LETTERS or word in _KNOWN) and not (is_attached and word in _NEVER_ATTACHED)
    if name_of(word):
        return True
    return len(word) > 1 if is_text else len(word) > 2 and not is_attached


def _is_variable(word: str) -> bool:
    """Returns whether a letter behind a unit is neither a unit nor the article of `dollars a day`."""
    return len(word) == 1 and word.isalpha() and word != "a" and word not in _LETTERS and word not in _KNOWN


def _named(word: str) -> str:
    """Returns a word as it is compared."""
    return name_of(word) or _PLURAL.sub("", word.casefold())


def _words(words: list[str]) -> frozenset[str]:
    """Returns the names of words. A word right before a known unit belongs to it: a light year is no year."""
    found: list[str] = []
    for place, word in enumerate(words):
        name = _named(word)
        modifier = words[place - 1] if place and len(word) > _SHORT and name_of(word) else ""
        if modifier.isalpha() and not name_of(modifier) and modifier.lower() not in _NO_MODIFIERS:
            found[-1] = f"{found[-1]} {name}"
        else:
            found.append(name)
    return frozenset(found)


def name_of(word: str) -> str:
    """Returns the name of a unit, in the singular or plural, or an empty text."""
    if len(word) == 1 or word.startswith("^"):
        return _KNOWN.get(word, word if word.startswith("^") else "")
    return _KNOWN.get(word) or _KNOWN.get(word.lower()) or _KNOWN.get(word.lower().rstrip("s")) or ""


def _name(words: list[str]) -> str:
    """Returns the sorted factors, the same for `m/s^2` and `m s^-2`. Empty if any word is unknown."""
    powers: Counter[str] = Counter()
    sign, power, last = 1, 1, ""
    for word in words:
        name = name_of(word)
        if not name:
            return ""
        if name == "per":
            sign = -1
        elif not name.startswith("^"):
            powers[name] += sign * power
            power, last = 1, name
        elif last and word.lower() not in _BEFORE_UNIT:
            powers[last] += sign * (int(name[1:]) - 1)
        else:
            power = int(name[1:])
    return " ".join(f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items()) if power)
