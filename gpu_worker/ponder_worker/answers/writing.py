"""One way of writing for what can be written in many: what answers are compared by before anything is computed."""

from __future__ import annotations

import re
from functools import lru_cache

from ponder_worker.answers.set_text import unset, whole_text
from ponder_worker.answers.unicode import as_ascii

_PLAIN = re.compile(r"[A-Za-z0-9.-]*")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\?\$|`")
_DOLLARS = re.compile(r"^[ $]*([-+]?)\\\$ ?([0-9.][0-9,.]*(?:[ A-Za-z]*)[ $]*)$")
"""An amount: an escaped sign is a currency, a pair of bare ones delimits a formula."""
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
"""A comma that LaTeX sets without the blank of a list: `1{,}234` is one number in any list."""
_DOLLARS_BEHIND = re.compile(r"(?<=[0-9])[ ]?\\\$(?=[ $]*\Z)")
_LONE_DOLLAR = re.compile(r" *([-+]?) ?\$ ?([0-9.][0-9,.]*[ A-Za-z]*)")
_MODULUS = r"(?:\{([^{}]*)\}|([0-9]+|[A-Za-z](?![A-Za-z])))"
_CONGRUENT = re.compile(
    rf"\( ?(?:\\b?mod(?![a-z])|\\text ?\{{ ?mod ?\}}|mod(?![a-z])) ?{_MODULUS} ?\)|\\(?:p?mod|pod)(?![a-z]) ?{_MODULUS}"
)
r"""`\pmod 7`, `(\bmod 7)`, `(mod 7)`: a congruence, and no remainder as `\bmod` without brackets."""
_SIGNS = (
    (r"\{\}", r"\emptyset "), ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "), (r"^{\circ}", r"^\circ "), ("{}", ""),
)  # fmt: skip
_SET_LETTER = re.compile(r"\\mathbb ([A-Z])")
_ABOUT = re.compile(r"^(?:(?i:approximately|about|roughly)|\\approx) (?=[-0-9\\])")
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?i:inf|infinity)(?![A-Za-z])")
_AROUND_WORDS = ".,:;!?\"'()"
_INSIDE_WORDS = re.compile(r"['-]")
_SYMBOLIC = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp",
    "sqrt", "pi", "theta", "alpha", "beta", "gamma", "delta", "lambda", "omega", "sigma", "tau", "phi", "mu",
))  # fmt: skip
"""Words that are mathematics."""
_BLANKS = re.compile(r"\s+")
_NEEDLESS = re.compile(r" (?![A-Za-z0-9])|(?<![A-Za-z0-9]) ")
_AFTER_COMMAND = re.compile(r"(\\[A-Za-z]+) (?=[0-9])")
_ONE_TOKEN = re.compile(r"([_^])\{([A-Za-z0-9])\}(?![A-Za-z0-9])")
_ACCENTED = re.compile(r"(\\(?:bar|vec|hat|tilde|dot|ddot|overline))\{([A-Za-z])\}(?![A-Za-z0-9])")
_ENDS = " \t\n.,;:。"
_STARTS = " \t\n,;:=。"
_NESTED = 4
_LONG = 20_000
"""Characters. A text that is longer is nothing that anybody would call an answer: it is compared as it is."""


@lru_cache(maxsize=512)
def plain(text: str) -> str:
    r"""The text in ASCII without delimiters, spacing and sizes; `\text{ab}` and every sort of font is `\text{ab}`."""
    if _PLAIN.fullmatch(text) or len(text) > _LONG:
        return text.rstrip(_ENDS).lstrip(_STARTS)
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
    text = _BLANKS.sub(" ", _INFINITY.sub(r"\\infty ", text))
    text = text.rstrip(_ENDS + "\\").lstrip(_STARTS)
    text = _ABOUT.sub("", text)
    for _ in range(_NESTED):
        if text.startswith("{") and text.endswith("}") and _closes_at_end(text):
            text = text[1:-1].strip()
    if (whole := whole_text(text)) is not None:
        text = whole.strip()
    return text.strip("*_ ") if text.startswith(("*", "_")) else text.rstrip("* ")


def identity(text: str) -> str:
    r"""Equal for texts of which nobody would say that they differ: outer `\text`, blanks and case of words apart."""
    text = unset(plain(text))
    text = _NEEDLESS.sub("", _BLANKS.sub(" ", text).rstrip(_ENDS).lstrip(_STARTS))
    text = _ONE_TOKEN.sub(r"\1\2", _ACCENTED.sub(r"\1 \2", text)) if "{" in text else text
    text = _AFTER_COMMAND.sub(r"\1", text) if "\\" in text else text
    return text.casefold() if is_words(text) else text


def are_identical(one: str, other: str) -> bool:
    """Whether nobody would say that two texts differ. Where nothing but punctuation is written, it counts."""
    written = identity(one)
    return one.strip() == other.strip() or (written != "" and written == identity(other))


def is_words(text: str) -> bool:
    """Whether it is a word or several, and no formula: one letter may be a variable or a choice."""
    words = [word.strip(_AROUND_WORDS) for word in text.split(" ")]
    longest = max(map(len, words))
    return longest > (2 if len(words) > 1 else 1) and "\\" not in text and all(map(_is_word, words))


def _is_word(text: str) -> bool:
    parts = _INSIDE_WORDS.split(text)
    return all(map(str.isalpha, parts)) and (len(parts) == 1 or len(parts[0]) > 1) and text.lower() not in _SYMBOLIC


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
