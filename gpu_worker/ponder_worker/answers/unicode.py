"""Characters of other scripts and of typography, written as ASCII and LaTeX."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_OTHER = re.compile(r"[^\x00-\x7f]")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+")
_LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉₊₋]+")
_ROOT = re.compile(r"([√∛∜])[ ]?(?=[\w({])(\d+|\w)?")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}
_FRACTION = re.compile(r"[¼½¾⅐-⅞↉]")
_SYMBOLS = {
    **dict.fromkeys("−﹣－‐‑‒–", "-"),
    **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    **dict.fromkeys("、，", ","),
    **dict.fromkeys("。．", "."),
    "×": r"\times ", "÷": "/", "∕": "/", "⁄": "/", "∗": "*", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ",
    "℃": r"^\circ \text{C}", "℉": r"^\circ \text{F}", "∠": r"\angle ", "△": r"\triangle ", "∖": r"\setminus ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "¢": " cents ", "⟨": r"\langle ", "⟩": r"\rangle ", "…": r"\ldots ", "→": r"\to ", "∑": r"\sum ", "∫": r"\int ",
}  # fmt: skip


def as_ascii(text: str) -> str:
    r"""`−５` is `-5`, `x²` is `x^{2}`, `2½` is `2\frac{1}{2}`, `√12` is `\sqrt{12}`; letters of words stay."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0])}}}".replace("−", "-"), text)
    text = _LOWERED.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0])}}}".replace("−", "-"), text)
    text = _FRACTION.sub(_fraction, text)
    text = _ROOT.sub(_root, text)
    return _OTHER.sub(lambda character: _written(character[0]), text)


def _root(found: re.Match[str]) -> str:
    return rf"\sqrt{_DEGREES[found[1]]}" + (f"{{{found[2]}}}" if found[2] else "")


def _fraction(character: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", character[0]).partition("⁄")
    return rf"\frac{{{over}}}{{{under}}}"


@lru_cache(maxsize=4096)
def _written(character: str) -> str:
    if (symbol := _SYMBOLS.get(character)) is not None:
        return symbol
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    name = unicodedata.name(character, "")
    if name.startswith(("GREEK SMALL LETTER ", "GREEK CAPITAL LETTER ")):
        return _greek(character, name)
    same = unicodedata.normalize("NFKC", character)
    return same if same == character or same.isascii() else character


def _greek(character: str, name: str) -> str:
    kind, _, letter = name.partition(" LETTER ")
    if not letter.isalpha() or letter == "FINAL":
        return character
    command = letter.lower().replace("lamda", "lambda")
    return rf"\{command.capitalize() if kind == 'GREEK CAPITAL' else command} "
