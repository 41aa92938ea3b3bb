"""Amounts of money, formatted in one unit so that they compare at a glance, and of time, as users write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import InvalidOperation

import click

from ponder.domain.batch.window import duration_s
from ponder.domain.money import NANODOLLARS, nanodollars

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


class Duration(click.ParamType[int]):
    """A duration on the command line, such as `30d` or `1d12h`, as seconds."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        seconds = value if isinstance(value, int) else duration_s(value)
        if seconds is None:
            self.fail(f"{value!r} is no duration: give weeks, days, hours, minutes or seconds, e.g. 30d or 1d12h")
        return seconds


class Dollars(click.ParamType[int]):
    """An amount of dollars on the command line, as nano-dollars."""

    name = "dollars"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            amount = value if isinstance(value, int) else nanodollars(value)
        except (InvalidOperation, ValueError, OverflowError):
            amount = -1
        if not 0 <= amount < 2**63:
            self.fail(f"{value!r} is not an amount of dollars with at most nine decimal places")
        return amount


def whole_duration(seconds: int) -> str:
    """Returns a duration in its largest whole unit: 86400 is `1 day`."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length:,} {unit}{'' if seconds == length else 's'}"
    return f"{seconds:,} seconds"
