"""Compares answers by their writing alone. Votes are counted by it, and verifiers try it before they compute."""

from __future__ import annotations

import re

from ponder_worker.answers.numeral import Numeral, read_numeral
from ponder_worker.answers.parts import Parts, Relation, split_parts, split_relation
from ponder_worker.answers.wrapping import unset, without_text
from ponder_worker.answers.writing import BLANKS, ENDS, STARTS, plain

_LONG = 1_000
"""Characters. A longer text, or one of several lines, is a program or a document. Only its blanks are normalised."""
_DEPTH = 3
_LONGEST_NAME = 60
_MIRRORED = {">": "<", ">=": "<="}
_INVERSE = re.compile(r"\^ ?\{? ?-1 ?\}?(?= ?\()")
"""The exponent of `f^{-1}(x)`, which is a name just as `f(x)` is."""
_SYMBOL = re.compile(r"[A-Za-z](?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?")
_LOWERED = re.compile(r"_ ?(?:\{[^{}]*\}|[A-Za-z0-9])")
_COMMANDS = re.compile(
    r"\\(?!(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|(?:var)?rho"
    r"|(?:var)?sigma|tau|upsilon|(?:var)?phi|chi|psi|omega|ell|hbar)(?![a-z]))[a-z]+",
    re.IGNORECASE,
)
"""Commands that do not write a letter."""
_NO_NAME = re.compile(
    r"[0-9+*^!%<>=-]|\\(?:sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|infty|times|cdot|pm|mp|cup|cap)(?![a-z])"
)
_AROUND_WORDS = ".,:;!?\"'()"
_INSIDE_WORDS = re.compile(r"['-]")
_SYMBOLIC = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp",
    "sqrt", "pi", "theta", "alpha", "beta", "gamma", "delta", "lambda", "omega", "sigma", "tau", "phi", "mu",
))  # fmt: skip
"""Words that name functions or symbols."""
_NEEDLESS = re.compile(r" (?![A-Za-z0-9])|(?<![A-Za-z0-9]) ")
_AFTER_COMMAND = re.compile(r"(\\[A-Za-z]+) (?=[0-9])")
_ONE_TOKEN = re.compile(r"([_^])\{([A-Za-z0-9])\}(?![A-Za-z0-9])")
_ACCENTED = re.compile(r"(\\(?:bar|vec|hat|tilde|dot|ddot|overline))\{([A-Za-z])\}(?![A-Za-z0-9])")


def canonical(answer: str) -> str:
    r"""Returns the same text for answers that differ in writing only: `1,000.0` and `$1000$`, `x = \dfrac12` and `0.5`.

    Also ignores the order of lists, percent signs, units and the case of words. Unlike the verifier `math` it computes
    nothing.
    """
    stripped = answer.strip()
    if len(stripped) > _LONG or "\n" in stripped:
        return " ".join(stripped.split())
    return _canonical(plain(stripped), _DEPTH)


def assigned(relation: Relation) -> tuple[str, str] | None:
    r"""Returns the name and the value of `x = 5`, `x = 2 + 3 = 5`, `|AB| = 5 \approx 5.0` or `x \in S`.

    The value of a chain without a name, `84/2 = 42`, is its last side, and the name is empty. `x = y = 5` has both
    names as one. Returns None for an equation that assigns nothing.
    """
    sides, signs = relation.sides, relation.signs
    if "~" in signs:
        end = signs.index("~")
        is_all = end == 0 and is_name(sides[0])
        sides, signs = (sides[:2], ("=",)) if is_all else (sides[: end + 1], signs[:end])
    if any(sign not in ("=", "in") for sign in signs) or "in" in signs[1:]:
        return None
    if any(split_parts(side) is not None for side in sides[1:-1]):
        return None
    if len(sides) == 1 or not (sides[0].startswith(r"\text") or any(map(_has_letters, sides))):
        return "", sides[-1]
    if is_name(sides[0]):
        others = [identity(side) for side in sides[1:-1] if _SYMBOL.fullmatch(side)]
        return "=".join(sorted((identity(sides[0]), *others))), sides[-1]
    if len(sides) == 2 and is_name(sides[1]):
        return identity(sides[1]), sides[0]
    return None


def interval_of(relation: Relation) -> Parts | None:
    r"""Returns the interval of an inequality about one name, such as `2 < x \le 5` or `x > 3`."""
    sides, signs = relation.sides, relation.signs
    if signs[0] in (">", ">="):
        sides, signs = sides[::-1], tuple(_MIRRORED.get(sign, "") for sign in signs[::-1])
    if not set(signs) <= {"<", "<="}:
        return None
    if len(sides) == 2:
        sides, signs = (sides[0], sides[1], r"\infty") if is_name(sides[1]) else (r"-\infty", *sides), (*signs, *signs)
        signs = (signs[0], "<") if sides[2] == r"\infty" else ("<", signs[0])
    if len(sides) != 3 or not is_name(sides[1]):
        return None
    opening, closing = "(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]"
    is_open = (opening, closing) == ("(", ")")
    return Parts("tuple" if is_open else "interval", (sides[0], sides[2]), opening, closing)


def identity(text: str) -> str:
    r"""Returns the same text for texts that differ only in `\text`, blanks and the case of words."""
    text = unset(plain(text))
    text = _NEEDLESS.sub("", BLANKS.sub(" ", text).rstrip(ENDS).lstrip(STARTS))
    text = _ONE_TOKEN.sub(r"\1\2", _ACCENTED.sub(r"\1 \2", text)) if "{" in text else text
    text = _AFTER_COMMAND.sub(r"\1", text) if "\\" in text else text
    return text.casefold() if is_words(text) else text


def are_identical(one: str, other: str) -> bool:
    """Returns whether two texts are the same writing. Punctuation counts where there is nothing else."""
    written = identity(one)
    return one.strip() == other.strip() or (written != "" and written == identity(other))


def is_words(text: str) -> bool:
    """Returns whether a text consists of words and is not a formula. A single letter may be a variable or a choice."""
    words = [word.strip(_AROUND_WORDS) for word in text.split(" ")]
    longest = max(map(len, words))
    return longest > (2 if len(words) > 1 else 1) and "\\" not in text and all(map(_is_word, words))


def _is_word(text: str) -> bool:
    parts = _INSIDE_WORDS.split(text)
    return all(map(str.isalpha, parts)) and (len(parts) == 1 or len(parts[0]) > 1) and text.lower() not in _SYMBOLIC


def is_name(text: str) -> bool:
    r"""Returns whether an equation may define this side: `x_1`, `f(x)`, `|AB|`, `\frac{NO}{BO}`, `(p, q)`."""
    if len(text) > _LONGEST_NAME:
        return False
    bare = _INVERSE.sub("", _LOWERED.sub("", text))
    return any(map(str.isalpha, bare)) and _NO_NAME.search(without_text(bare)) is None


def value_of(text: str) -> tuple[str, str]:
    """Returns the name and the value of a plain text. The name is empty if the text gives none."""
    if not any(sign in text for sign in ("=", r"\approx", r"\in")):
        return "", text
    relation = split_relation(text)
    found = assigned(relation) if relation is not None else None
    return found or ("", text)


def number_of(answer: str) -> Numeral | None:
    """Returns the number that an answer is, or that it assigns to a name."""
    return read_numeral(answer) or read_numeral(value_of(plain(answer))[1])


def _canonical(text: str, depth: int) -> str:
    numeral = number_of(text)
    if numeral is not None:
        return str(numeral.value)
    parts = split_parts(text) if depth else None
    if parts is None:
        value = value_of(text)[1]
        return _canonical(value, depth - 1) if depth and value != text else identity(text)
    return _joined(parts, [_canonical(item, depth - 1) for item in parts.items])


def _joined(parts: Parts, items: list[str]) -> str:
    if parts.kind in ("list", "set"):
        return ", ".join(sorted(items))
    return f"{parts.opening}{', '.join(items)}{parts.closing}"


def _has_letters(side: str) -> bool:
    """Returns whether a side has letters other than commands, words set as text, and the unit of a number."""
    return read_numeral(side) is None and any(map(str.isalpha, _COMMANDS.sub("", without_text(side))))
