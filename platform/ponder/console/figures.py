"""Writes amounts, shares and times for people, as filters of templates."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

from ponder.domain.money import NANODOLLARS, dollars

_DASH = "–"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def money(nanodollars: float | None) -> Markup | str:
    """Writes an amount as short as its size allows, with the exact one on hover."""
    if nanodollars is None:
        return _DASH
    exact = f"${nanodollars / NANODOLLARS:,.9f}".rstrip("0").rstrip(".")
    return Markup('<data value="{}" title="{}">{}</data>').format(nanodollars, exact, dollars(nanodollars))


def short(number: float) -> str:
    """Writes a number in three digits, with a prefix from a hundred thousand on: `1.25 M`, `52,100`, `0.31`."""
    if abs(number) < 100_000:
        is_whole = number == round(number) or abs(number) >= 999.5
        return f"{number:,.0f}" if is_whole else f"{number:.3g}"
    number = float(f"{number:.3g}")
    size, letter = next((size, letter) for size, letter in _LARGE if abs(number) >= size)
    return f"{number / size:.3g} {letter}"


def count(number: float | None) -> Markup | str:
    """Writes a whole number, from a hundred thousand on shortened and with the exact one on hover."""
    if number is None:
        return _DASH
    if abs(number) < 100_000:
        return f"{number:,.0f}"
    return Markup('<data value="{0:.0f}" title="{0:,.0f}">{1}</data>').format(number, short(number))


def size(num_bytes: float | None) -> str:
    """Writes a number of bytes with three digits: `1.24 MB`."""
    if num_bytes is None:
        return _DASH
    rounded = float(f"{num_bytes:.3g}")
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if rounded >= unit:
            return f"{rounded / unit:.3g} {name}"
    return f"{num_bytes:.0f} B"


def percent(share: float | None) -> str:
    """Writes a share from 0 to 1. A share that is nearly 0 or 1 does not look as if it were."""
    if share is None:
        return _DASH
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{share * 100:.1f} %".replace(".0 %", " %")


def duration(seconds: float | None) -> str:
    """Writes a time with its two largest units: `2 h 5 min`, `3 d 4 h`, `2.5 s`, `40 ms`."""
    if seconds is None:
        return _DASH
    if 0 < seconds < 0.95:
        return f"{float(f'{seconds * 1_000:.2g}'):g} ms" if seconds >= 0.001 else "<1 ms"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    rest = round(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def ago(unix: float | None) -> Markup | str:
    """Writes a moment in the past or future, relative to now. A script keeps it right, and shows the exact one."""
    if unix is None:
        return _DASH
    at = datetime.fromtimestamp(unix, UTC)
    text = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}" data-relative>{}</time>').format(at.isoformat(), text, text)


def moment(unix: float | None) -> Markup | str:
    """Writes a moment as date and time in UTC."""
    if unix is None:
        return _DASH
    at = datetime.fromtimestamp(unix, UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), at.strftime("%Y-%m-%d %H:%M UTC"))
