"""Compares answers whose writing counts: words, numbers to a base, ratios and times of day."""

from __future__ import annotations

import re
from collections.abc import Callable

from ponder_worker.answers.equality import identity, is_words

_BASE = re.compile(r"\(? ?[0-9A-Fa-f]+ ?\)? ?_ ?\{? ?[0-9]+ ?\}?")
_CLOCK = re.compile(r"(?P<time>[0-9.]+(?: ?: ?[0-9.]+)+) ?(?:(?P<half>[aApP])\.? ?[mM]\.?)?")
_BRACKETS = re.compile(r"[{}() ]")
_TIMES = re.compile(r" ?(?:\\cdot|\\times|\*) ?")
_LETTERS = re.compile(r"[A-Za-z](?: ?[A-Za-z])*")
_COMMON_WORDS = frozenset(("no", "on", "is", "of", "if", "so", "as", "at", "it", "in", "or", "to", "we", "yes", "not"))
_LONGEST_PRODUCT = 3
"""Letters. More of them are a word, unless they are written as a product."""


def counts_as_written(text: str) -> bool:
    """Returns whether a text is a number to a base, a ratio or a time of day."""
    return _BASE.fullmatch(text) is not None or _CLOCK.fullmatch(text) is not None


def same_writing(found: str, wanted: str, same: Callable[[str, str], bool]) -> bool | None:
    """Compares two texts, or returns None to leave it to a parser. `same` compares the numbers of a time or ratio."""
    one, other = identity(found), identity(wanted)
    if is_words(one) or is_words(other):
        return _same_words(found, wanted)
    if _BASE.fullmatch(one) or _BASE.fullmatch(other):
        return _BRACKETS.sub("", one) == _BRACKETS.sub("", other)
    clock, its = _CLOCK.fullmatch(one), _CLOCK.fullmatch(other)
    if clock is None or its is None:
        return False if clock or its else None
    if clock["half"] and its["half"] and clock["half"].lower() != its["half"].lower():
        return False
    times = clock["time"].split(":"), its["time"].split(":")
    return len(times[0]) == len(times[1]) and all(map(same, *times))


def _same_words(found: str, wanted: str) -> bool | None:
    r"""Compares words and products. `xy` is also the product `x \cdot y`. Products with capitals keep their order."""
    one, other = _factors(found), _factors(wanted)
    products = [text for text in (found, wanted) if _is_product(text)]
    if one and other:
        is_product = len(products) == 2 and (one + other).islower()
        return one == other or (is_product and sorted(one) == sorted(other))
    is_formula = [not is_words(identity(text)) for text in (found, wanted)]
    return None if products and any(is_formula) and (one or other).islower() else False


def _is_product(text: str) -> bool:
    is_short = text.isalpha() and len(text) <= _LONGEST_PRODUCT and text.lower() not in _COMMON_WORDS
    return is_short or (not text.isalpha() and _factors(text) != "")


def _factors(text: str) -> str:
    """Returns the letters of a product, `xyz` for `x y z`, or an empty text: `to day` is none."""
    factors = _TIMES.split(text) if _TIMES.search(text) else text.split(" ")
    is_product = len(factors) > 1 and all(len(factor) == 1 for factor in factors)
    return "".join(factors) if (is_product or text.isalpha()) and _LETTERS.fullmatch(" ".join(factors)) else ""
