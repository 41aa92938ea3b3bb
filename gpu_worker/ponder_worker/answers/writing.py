"""Normalises the writing of answers to ASCII and plain LaTeX, before anything is compared or computed."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ponder_worker.answers.wrapping import whole_text

_PLAIN = re.compile(r"[A-Za-z0-9.-]*")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\?\$|`")
_DOLLARS = re.compile(r"^[ $]*([-+]?)\\\$ ?([0-9.][0-9,.]*(?:[ A-Za-z]*)[ $]*)$")
"""An amount of money. An escaped dollar sign is a currency, and a pair of bare ones delimits a formula."""
_COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(("leq", "leqslant", "le"), r"\le "),
    **dict.fromkeys(("geq", "geqslant", "ge"), r"\ge "),
    **dict.fromkeys(("neq", "ne"), r"\ne "),
    **dict.fromkeys(("textbf", "textit", "textrm", "textnormal", "textsf", "texttt", "textup", "emph"), r"\text"),
    **dict.fromkeys(("mathrm", "mathbf", "mathit", "mathsf", "mbox", "hbox", "operatorname"), r"\text"),
    **dict.fromkeys(("displaystyle", "textstyle", "limits", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl"), ""),
    **dict.fromkeys(("Bigr", "left", "right", "mleft", "mright", "boldsymbol", "bm", "tiny"), ""),
    **dict.fromkeys(("bf", "rm", "it", "sf", "tt"), ""),
    **dict.fromkeys(("quad", "qquad", "enspace", "thinspace"), " "),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "degree": r"^\circ ", "infin": r"\infty ", "colon": ":",
    "cdotp": r"\cdot ", "div": "/", "varnothing": r"\emptyset ", "iff": r"\Leftrightarrow ", "percent": "%",
    "langle": "(", "rangle": ")", "lbrack": "[", "rbrack": "]", "dots": r"\ldots ",
    "cdots": r"\ldots ", "land": r"\text{ and }", "lor": r"\text{ or }",
}  # fmt: skip
_COMMAND = re.compile(r"\\\\|\\([A-Za-z]+)[ ]?|\\([,;:!> ~#&%])|~")
_SQUEEZED = re.compile(r"(,)\\![ ]?|[ ]?(?:\\text)?\{[ ]?([,:])[ ]?\}")
_GROUPED = re.compile(r"(?<=\d)(?:\\,|~|\\ |\\:|\\;|')(?=\d{3}(?!\d))")
_GROUPED_BY_COMMAS = re.compile(r"(?<![0-9.,}])[1-9][0-9]{0,2}(?:\{,\}[0-9]{3})+(?![0-9{])")
"""A number with commas that LaTeX sets without the blank of a list: `1{,}234` is one number in any list."""
_DOLLARS_BEHIND = re.compile(r"(?<=[0-9])[ ]?\\\$(?=[ $]*\Z)")
_LONE_DOLLAR = re.compile(r" *([-+]?) ?\$ ?([0-9.][0-9,.]*[ A-Za-z]*)")
_MODULUS = r"(?:\{([^{}]*)\}|([0-9]+|[A-Za-z](?![A-Za-z])))"
_CONGRUENT = re.compile(
    rf"\( ?(?:\\b?mod(?![a-z])|\\text ?\{{ ?mod ?\}}|mod(?![a-z])) ?{_MODULUS} ?\)|\\(?:p?mod|pod)(?![a-z]) ?{_MODULUS}"
)
r"""A congruence: `\pmod 7`, `(\bmod 7)`, `(mod 7)`. Without brackets `\bmod` is a remainder."""
_SIGNS = (
    (r"\{\}", r"\emptyset "), ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "), (r"^{\circ}", r"^\circ "), ("{}", ""),
)  # fmt: skip
_SET_LETTER = re.compile(r"\\mathbb ([A-Z])")
_ABOUT = re.compile(r"^(?:(?i:approximately|about|roughly)|\\approx) (?=[-0-9\\])")
_CUT_DECIMAL = re.compile(r"((?:[^=,;+]{0,60}=)? ?-?[0-9]*\.[0-9]+) ?\\ldots ?")
"""A decimal whose further digits are left out, which counts as it stands: `3.14\\ldots`."""
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?i:inf|infinity)(?![A-Za-z])")
BLANKS = re.compile(r"\s+")
ENDS = " \t\n.,;:。"
STARTS = " \t\n,;:=。"
_NESTED = 4
_LONG = 20_000
"""Characters. A longer text is no short answer and is compared as it is."""
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


@lru_cache(maxsize=512)
def plain(text: str) -> str:
    r"""Returns the text in ASCII without delimiters, spacing and sizes. Every font becomes `\text{…}`."""
    if _PLAIN.fullmatch(text) or len(text) > _LONG:
        return text.rstrip(ENDS).lstrip(STARTS)
    text = as_ascii(text)
    text = _GROUPED_BY_COMMAS.sub(lambda number: number[0].replace("{,}", ""), text) if "{,}" in text else text
    text = _SQUEEZED.sub(lambda found: found[1] or found[2], _GROUPED.sub("", text))
    text = _DOLLARS_BEHIND.sub(" USD", _DOLLARS.sub(r"\1USD \2", text))
    if text.count("$") == 1 and (amount := _LONE_DOLLAR.fullmatch(text)) is not None:
        text = f"{amount[1]}USD {amount[2]}"
    text = _DELIMITERS.sub("", text)
    if r"\begin" not in text:
        text = text.replace(r"\\", "\\")
    text = _COMMAND.sub(_command, text)
    if "mod" in text or r"\pod" in text:
        text = _CONGRUENT.sub(lambda found: rf" \pmod{{{found[1] or found[2] or found[3] or found[4]}}}", text)
    for old, new in _SIGNS:
        text = text.replace(old, new)
    text = _SET_LETTER.sub(r"\\mathbb{\1}", text) if r"\mathbb" in text else text
    text = BLANKS.sub(" ", _INFINITY.sub(r"\\infty ", text))
    text = text.rstrip(ENDS + "\\").lstrip(STARTS)
    text = _ABOUT.sub("", text)
    text = cut[1] if (cut := _CUT_DECIMAL.fullmatch(text)) is not None else text
    for _ in range(_NESTED):
        if text.startswith("{") and text.endswith("}") and _closes_at_end(text):
            text = text[1:-1].strip()
    if (whole := whole_text(text)) is not None:
        text = whole.strip()
    return text.strip("*_ ") if text.startswith(("*", "_")) else text.rstrip("* ")


def _command(found: re.Match[str]) -> str:
    name, sign = found[1], found[2]
    if name:
        return _COMMANDS.get(name, found[0])
    if sign is None:
        return " " if found[0] == "~" else found[0]
    return sign if sign in "#&%" else "" if sign == "!" else " "


def _closes_at_end(text: str) -> bool:
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return place == len(text) - 1
    return False


def as_ascii(text: str) -> str:
    r"""Returns `-5` for `−５`, `x^{2}` for `x²`, `\frac{1}{2}` for `½`, `\sqrt{12}` for `√12`. Keeps letters."""
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
