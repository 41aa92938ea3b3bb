"""Formats the amounts of money in a table in one unit, so that they compare at a glance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ponder.domain.money import NANODOLLARS

_SIZES = (
    (NANODOLLARS, "dollars"),
    (NANODOLLARS // 1_000, "thousandths of a dollar"),
    (NANODOLLARS // 1_000_000, "millionths of a dollar"),
    (1, "billionths of a dollar"),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of `size` nano-dollars, called `name`."""

    size: int
    name: str

    @classmethod
    def of(cls, amounts: Iterable[float | None]) -> Unit:
        """Returns the largest unit in which most of these nano-dollars have a digit before the point."""
        known = sorted(amount for amount in amounts if amount)
        middle = known[len(known) // 2] if known else NANODOLLARS
        return next((cls(*size) for size in _SIZES if middle >= size[0]), cls(*_SIZES[-1]))

    def written(self, nanodollars: float | None) -> str:
        """Formats an amount with three significant digits, without the unit's name, or a dash if unknown."""
        if nanodollars is None:
            return "–"
        number = nanodollars / self.size
        return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
