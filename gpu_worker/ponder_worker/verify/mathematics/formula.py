"""Reads mathematics with latex2sympy, as extended by the authors of Math-Verify.

Plain writing such as `sqrt(2)`, `\\frac12`, `1.5e3` or `x^10` is first made into LaTeX that it reads as a person does.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_SIDE_BY_SIDE = re.compile(r"[0-9.] +[0-9]|[0-9]_ ?\{? ?[0-9]|\\ldots|[?]|\\overline ?\{ ?[0-9]")
"""Text that a parser would multiply or skip: numbers side by side, numbers to a base, `1, 2, …`."""
_BOUND = re.compile(r"(\\(?:int|sum|prod) ?(?:_ ?(?:\{[^{}]*\}|\w) ?)?\^ ?)([0-9A-Za-z])")
_ACCENT = re.compile(
    r"\\(vec|hat|bar|tilde|dot|ddot|overline|overrightarrow|widehat) ?"
    r"(?:\{ ?([A-Za-z]{1,3}) ?\}|([A-Za-z])(?![A-Za-z]))"
    r"(?: ?_ ?(?:\{([A-Za-z0-9]+)\}|([A-Za-z0-9])))?"
)
_GAMMA = re.compile(r"\\(?:(gamma)|(Gamma)(?! ?\())(?![A-Za-z])(?: ?_ ?(?:\{ ?([A-Za-z0-9]+) ?\}|([A-Za-z0-9])))?")
r"""A letter that a parser takes for the function or for Euler's constant: it reads `\gamma+1` as 1."""
_ORDERED = re.compile(r"(?:(?<![A-Za-z])[A-Z]|[A-Z]\}|_\{(?:vec|overrightarrow)\w*\}) {0,2}\\times(?![0-9 ]*[0-9(])")
"""A product of sets, matrices or vectors. A parser would exchange its sides."""
_HALVED = re.compile(r"/ ?[0-9]+ ?[A-Za-z\\(]")
r"""An ambiguous fraction: some read `1/2x` as `\frac{1}{2}x` and others as `\frac{1}{2x}`."""
_CHOSEN = re.compile(r"(?<![A-Za-z0-9_\\])C ?\( ?([0-9]{1,6}) ?, ?([0-9]{1,6}) ?\)")
_LOGARITHM = re.compile(r"\\log ?_ ?([0-9A-Za-z])")
_LG = re.compile(r"\\lg(?![A-Za-z])")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?\^ ?\{? ?\\circ ?\}?")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([-+]?[0-9]+)(?![0-9.])")
_POINT = re.compile(r"(?<=[0-9])\.(?![0-9])")
_LEADING_POINT = re.compile(r"(?<![0-9])\.(?=[0-9])")
_MODULE = re.compile(r"\b(?:np|numpy|math|sympy)\.")
_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])(sqrt|arc(?:sin|cos|tan|cot)|a(?:sin|cos|tan)|(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp|pi|infty|theta"
    r"|alpha|beta|gamma|delta|lambda|omega|sigma|tau|phi|mu)(?![A-Za-z])"
)
_LONG_POWER = re.compile(r"\^ ?([-+]?[0-9]{1,9}(?:\.[0-9]+)?)")
_FRAC_OVER = re.compile(r"\\(frac|binom) ?([0-9A-Za-z])")
_FRAC_OVER_COMMAND = re.compile(r"\\frac ?(\\[A-Za-z]+) ?(?=[\\{0-9])")
_FRAC_UNDER = re.compile(r"(\\(?:frac|binom) ?\{[^{}]*\}) ?([0-9A-Za-z]|\\[A-Za-z]+)")
_SQRT = re.compile(r"\\sqrt ?([0-9A-Za-z]|\\[A-Za-z]+)")
_PROSE = re.compile(r"(?<![\\A-Za-z{_])(?:[A-Za-z]{4,}|[A-Za-z]{2,} [A-Za-z]{2,})")
"""Words. A parser would multiply their letters."""
_CALL = re.compile(r"(\\sqrt(?: ?\[[0-9a-z]\])?|\^) ?\(")
_PRIMES = re.compile(r"([A-Za-z])('+)|([A-Za-z]) ?\^ ?\{? ?((?:\\prime ?)+)\}?")
_DATE = re.compile(r"(?<![0-9])[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_MIXED = re.compile(r"(?<=[0-9])(?=\\frac ?\{ ?[0-9]+ ?\} ?\{ ?[0-9]+ ?\})")
_UNIT_POWER = re.compile(r"(?<!_)(?<!_\{)\\text ?\{[^{}]{2,}\} ?\^")
r"""A power of words. A parser would compute it."""
_LONGEST = 2_000


class Unreadable(Exception):
    """The text is not mathematics that can be read as a whole."""


@lru_cache(maxsize=256)
def parse(text: str) -> Any:
    """Returns a plain text as a sympy object. Raises Unreadable if any of it cannot be read."""
    prepared = prepare(text)
    if prepared is None:
        raise Unreadable(text)
    try:
        found = latex2sympy(prepared, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
        return _exact(found)
    except Exception:  # the parser raises errors of any type
        raise Unreadable(text) from None


def _exact(found: Any) -> Any:
    """Replaces decimals by fractions, and `i` by the imaginary unit unless it is the index of a sum or product."""
    if not hasattr(found, "atoms"):
        return found
    new: dict[Any, Any] = {number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)}
    if not found.atoms(sympy.Sum, sympy.Product):
        new |= {symbol: sympy.I for symbol in found.atoms(sympy.Symbol) if symbol.name in ("i", "imath")}
    named = found.xreplace(new)
    return named.replace(_is_unknown_slope, lambda part: sympy.Symbol(str(part), real=True))


def _is_unknown_slope(part: Any) -> bool:
    """Returns whether it is a derivative of a function that only has a name. sympy takes it for 0."""
    return isinstance(part, sympy.Derivative) and not part.expr.free_symbols & set(part.variables)


def prepare(text: str) -> str | None:
    """Returns LaTeX for the parser, or None if the parser would misread the text."""
    if len(text) > _LONGEST:
        return None
    text = _LOGARITHM.sub(r"\\log_{\1}", _LG.sub(r"\\log_{10} ", text))
    text = _BOUND.sub(r"\1{\2} ", _CHOSEN.sub(r"\\binom{\1}{\2}", text))
    if _SIDE_BY_SIDE.search(text) or _HALVED.search(text) or _UNIT_POWER.search(text):
        return None
    text = _ACCENT.sub(_accented, text)
    if _ORDERED.search(text):
        return None
    text = _DEGREES.sub(r"(\1 \\cdot \\frac{\\pi}{180})", _THOUSANDS.sub("", text))
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2} ", text)
    text = _LEADING_POINT.sub("0.", _POINT.sub("", text))
    text = _MODULE.sub("", text).replace("**", "^")
    text = _FUNCTION.sub(_function, text)
    if _PROSE.search(text) or text.startswith(("_", "^")):
        return None
    text = _PRIMES.sub(_primed, text)
    if "'" in text or r"\prime" in text or _DATE.search(text):
        return None
    text = _grouped(text)
    text = _LONG_POWER.sub(r"^{\1}", text)
    text = _FRAC_OVER_COMMAND.sub(r"\\frac{\1}", _FRAC_OVER.sub(r"\\\1{\2}", text))
    text = _FRAC_UNDER.sub(r"\1{\2}", text)
    text = _SQRT.sub(r"\\sqrt{\1}", text)
    return _MIXED.sub(" ", _GAMMA.sub(_gamma, text)).strip()


def _function(found: re.Match[str]) -> str:
    name = found[1]
    return rf"\arc{name[1:]} " if name in ("asin", "acos", "atan") else rf"\{name} "


def _accented(found: re.Match[str]) -> str:
    """Returns one symbol for an accented letter: the name of a vector, a segment, a mean."""
    accent, letters, index = found[1], found[2] or found[3], found[4] or found[5] or ""
    return f"{letters[0]}_{{{accent}{letters}{index}}} "


def _gamma(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    return f"{name[0]}_{{{name}{found[3] or found[4] or ''}}} "


def _primed(found: re.Match[str]) -> str:
    """Returns a symbol for a derivative, because the parser drops the prime."""
    letter, num = (found[1], len(found[2])) if found[1] else (found[3], found[4].count("prime"))
    return f"{letter}_{{{'prime' * num}}}"


def _grouped(text: str) -> str:
    r"""Replaces the brackets of `\sqrt(a(b))` and `x^(n+1)` by braces."""
    opened: list[bool] = []
    starts = {found.end() - 1 for found in _CALL.finditer(text)}
    made = []
    for place, character in enumerate(text):
        if character == "(":
            opened.append(place in starts)
            made.append("{" if opened[-1] else "(")
        elif character == ")":
            made.append("}" if opened and opened.pop() else ")")
        else:
            made.append(character)
    return "".join(made)
