"""Amounts of money in a table: one unit for all, so that they compare at a glance."""

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
    """`size` nano-dollars, called `name`."""

    size: int
    name: str

    @classmethod
    def of(cls, amounts: Iterable[float | None]) -> Unit:
        """The largest in which most of these amounts of nano-dollars have a digit before the point."""
        known = sorted(amount for amount in amounts if amount)
        middle = known[len(known) // 2] if known else NANODOLLARS
        return next((cls(*size) for size in _SIZES if middle >= size[0]), cls(*_SIZES[-1]))

    def written(self, nanodollars: float | None) -> str:
        """Three digits that count, in this unit, without its name; a dash for what is not known."""
        if nanodollars is None:
            return "–"
        number = nanodollars / self.size
        return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
