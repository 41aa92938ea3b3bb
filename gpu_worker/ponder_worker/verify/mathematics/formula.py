"""Mathematics as latex2sympy (extended by the authors of Math-Verify) reads it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

from ponder_worker.verify.mathematics.latex import prepare

_CONVERSION = ConversionConfig(lowercase_symbols=False)


class Unreadable(Exception):
    """The text is no mathematics that can be read as a whole."""


@lru_cache(maxsize=256)
def parse(text: str) -> Any:
    """A plain text as sympy's. Raises Unreadable where any of it is left over."""
    prepared = prepare(text)
    if prepared is None:
        raise Unreadable(text)
    try:
        found = latex2sympy(prepared, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
        return _exact(found)
    except Exception:  # the parser raises whatever comes to its mind
        raise Unreadable(text) from None


def _exact(found: Any) -> Any:
    """Decimals as fractions, and i as the imaginary unit unless it counts something."""
    if not hasattr(found, "atoms"):
        return found
    new: dict[Any, Any] = {number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)}
    if not found.atoms(sympy.Sum, sympy.Product):
        new |= {symbol: sympy.I for symbol in found.atoms(sympy.Symbol) if symbol.name in ("i", "imath")}
    named = found.xreplace(new)
    return named.replace(_is_unknown_slope, lambda part: sympy.Symbol(str(part), real=True))


def _is_unknown_slope(part: Any) -> bool:
    """Whether it is a derivative of something that only has a name, of which sympy says that it is 0."""
    return isinstance(part, sympy.Derivative) and not part.expr.free_symbols & set(part.variables)
