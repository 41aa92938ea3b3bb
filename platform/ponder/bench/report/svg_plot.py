"""Plots as SVG: lines and points with intervals over two axes, without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

_WIDTH, _HEIGHT = 620, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 166, 16, 44
_COLOURS = ("#2563a8", "#d1603d", "#3f8f5b", "#8a5fb0", "#b58900", "#5c6670", "#c2478f", "#2a9d9d")
_TICKS = 5
_FEW = 3
"""The most powers of ten on a logarithmic axis between which there are ticks too."""
_SHOWN_END = 11
"""Characters of a long name that are shown at its start and at its end, which tell cells apart."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a plot, with the ends of its interval if it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Named points, in the order in which a line joins them."""

    name: str
    dots: Sequence[Dot]
    has_marks: bool = True


@dataclass(frozen=True, slots=True)
class _Stroke:
    """How a series is drawn: in a colour of its own, with dashes once the colours have begun again."""

    colour: str
    num_dashes: int

    @classmethod
    def of(cls, index: int) -> Self:
        return cls(_COLOURS[index % len(_COLOURS)], index // len(_COLOURS))

    @property
    def attributes(self) -> str:
        dashes = f' stroke-dasharray="{2 + 2 * self.num_dashes} {1 + self.num_dashes}"' if self.num_dashes else ""
        return f'stroke="{self.colour}"{dashes}'


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values between `low` and `high` to a length in pixels."""

    low: float
    high: float
    is_log: bool
    length: float

    def at(self, value: float) -> float:
        low, high, value = (_log(one) if self.is_log else one for one in (self.low, self.high, value))
        return self.length * (value - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        if self.is_log:
            first, last = math.ceil(_log(self.low) - 1e-9), math.floor(_log(self.high) + 1e-9)
            decades = [10.0**power for power in range(first, last + 1)]
            if len(decades) > _FEW:
                return decades
            found = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
            return [tick for tick in found if self.low <= tick <= self.high] or [self.low, self.high]
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def plot(series: Sequence[Series], *, x: str, y: str, log_x: bool = False, y_top: float | None = None) -> str:
    """Returns an <svg> of the series. `x` and `y` name the axes. Every value of a logarithmic axis must exceed 0."""
    dots = [dot for one in series for dot in one.dots]
    if not dots:
        return ""
    across = _axis([dot.x for dot in dots], _WIDTH - _LEFT - _RIGHT, is_log=log_x)
    highs = [dot.y if dot.high is None else dot.high for dot in dots]
    up = _axis([0.0, *highs, *([] if y_top is None else [y_top])], _HEIGHT - _TOP - _BOTTOM, is_log=False)
    parts = [_frame(across, up, x, y)]
    for index, one in enumerate(series):
        parts.append(_drawn(one, _Stroke.of(index), across, up))
        parts.append(_legend(one.name, _Stroke.of(index), index))
    title = escape(f"{y} over {x}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def _axis(values: Sequence[float], length: float, *, is_log: bool) -> _Axis:
    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 2, high * 2) if is_log else (low - 0.5, high + 0.5)
    return _Axis(low, high, is_log, length)


def _drawn(series: Series, stroke: _Stroke, across: _Axis, up: _Axis) -> str:
    places = [(_LEFT + across.at(dot.x), _TOP + up.length - up.at(dot.y), dot) for dot in series.dots]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in places)
    line = f'<polyline points="{path}" fill="none" {stroke.attributes} stroke-width="1.6"/>' if len(places) > 1 else ""
    marks = [_mark(left, top, dot, stroke, up) for left, top, dot in places] if series.has_marks else []
    return line + "".join(marks)


def _mark(left: float, top: float, dot: Dot, stroke: _Stroke, up: _Axis) -> str:
    circle = f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{stroke.colour}"/>'
    if dot.low is None or dot.high is None:
        return circle
    ends = (_TOP + up.length - up.at(max(up.low, dot.low)), _TOP + up.length - up.at(dot.high))
    bar = f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}" {stroke.attributes}/>'
    return bar + circle


def _frame(across: _Axis, up: _Axis, x: str, y: str) -> str:
    bottom, right = _TOP + up.length, _LEFT + across.length
    parts = [f'<path d="M{_LEFT},{_TOP}V{bottom}H{right}" fill="none" class="axis"/>']
    for tick in across.ticks:
        left = _LEFT + across.at(tick)
        parts.append(f'<text x="{left:.1f}" y="{bottom + 16}" text-anchor="middle">{_shown(tick)}</text>')
    for tick in up.ticks:
        top = bottom - up.at(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{top + 4:.1f}" text-anchor="end">{_shown(tick)}</text>')
    middle = _TOP + up.length / 2
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" {turned}>{escape(y)}</text>')
    return "".join(parts)


def _legend(name: str, stroke: _Stroke, index: int) -> str:
    left, top = _WIDTH - _RIGHT + 14, _TOP + 8 + 16 * index
    shown = name if len(name) <= 2 * _SHOWN_END else f"{name[:_SHOWN_END]}…{name[1 - _SHOWN_END :]}"
    return (
        f'<line x1="{left}" x2="{left + 14}" y1="{top}" y2="{top}" {stroke.attributes} stroke-width="3"/>'
        f'<text x="{left + 19}" y="{top + 4}"><title>{escape(name)}</title>{escape(shown)}</text>'
    )


def _round_step(step: float) -> float:
    """Returns the next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(_log(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _log(value: float) -> float:
    return math.log10(value)


def _shown(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}"
    return f"{value:,.10g}" if value == int(value) else f"{value:.4g}"
