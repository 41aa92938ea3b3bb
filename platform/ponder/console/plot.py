"""Draws plots as SVG on the server, so that pages need no script for them. Colours come from the style sheet.

Every plot is a figure with a caption, a legend if it has several series, and its data as a table for those who cannot
see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 84.0, 14.0, 26.0, 40.0
_NUM_TICKS = 5
_LETTER = 6.6
"""The usual width of a letter. A browser knows better, but text is placed before it sees it."""
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)

_WHISKER = Markup('<line class="whisker {}" x1="{}" x2="{}" y1="{}" y2="{}"/>')

_NAME = Markup('<text class="name" x="{}" y="{}" text-anchor="{}">{}</text>')

_RULE = Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>')

Write = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis with its label. `write` writes a value for a tick and for the table.

    `is_duration`: its values are seconds that passed. `step_s`: the points of an axis of time stand for hours or days,
    so that its ticks are no closer.
    """

    label: str
    write: Write = lambda value: f"{value:g}"
    is_time: bool = False
    is_duration: bool = False
    step_s: int = 1

    def ticks(self, low: float, high: float) -> list[float]:
        if self.is_time:
            return time_ticks(low, high, self.step_s)
        return duration_ticks(low, high) if self.is_duration else ticks(low, high)


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) with x ascending. `style` is a class of the style sheet that sets the colour."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "series-1"


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a scatter plot, with the interval of each value where one is known."""

    name: str
    x: float
    y: float
    style: str = "series-1"
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None
    is_labelled: bool = True


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar of parts, each with its value and style."""

    name: str
    parts: Sequence[tuple[str, float, str]]


@dataclass(frozen=True, slots=True)
class Span:
    """A time from `begin` to `end` in Unix seconds, with a mark at its end where something happened then."""

    name: str
    begin: float
    end: float
    style: str
    title: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Ranged:
    """A named value with the ends of its interval: both None where it is not known, `high` where it has no end."""

    name: str
    value: float
    low: float | None
    high: float | None
    style: str = "series-1"


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle around a middle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def is_within_frame(self) -> bool:
        return LEFT <= self.x - self.width / 2 <= self.x + self.width / 2 <= WIDTH and self.y < HEIGHT - BOTTOM - 6

    def meets(self, other: _Box) -> bool:
        is_beside = abs(self.x - other.x) >= (self.width + other.width) / 2
        return not is_beside and abs(self.y - other.y) < (self.height + other.height) / 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] onto pixels from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return round(self.begin + (value - self.low) / span * (self.end - self.begin), 2)


def line_plot(title: str, series: Sequence[Series], x: Axis, y: Axis, *, is_filled: bool = False) -> Markup:
    """Draws one line for each series. is_filled: shades the area below."""
    points = [point for one in series for point in one.points]
    if not points:
        return _empty(title)
    horizontal = _scale([a for a, _ in points], LEFT, WIDTH - RIGHT, from_zero=False)
    if x.is_time and horizontal.low == points[0][0] == max(points)[0]:
        horizontal = replace(horizontal, low=horizontal.low - x.step_s, high=horizontal.low + x.step_s)
    vertical = _scale([b for _, b in points], HEIGHT - BOTTOM, TOP, from_zero=True)
    shapes = [shape for one in series for shape in _line(one, horizontal, vertical, y, is_filled=is_filled)]
    rows = [(one.name, x.write(a), y.write(b)) for one in series for a, b in one.points]
    return _figure(
        title, frame(horizontal, vertical, x, y), shapes, legend(series), _table(("", x.label, y.label), rows)
    )


def scatter_plot(
    title: str,
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    *,
    frontier: Sequence[Point] = (),
    styles: Sequence[Series] = (),
) -> Markup:
    """Draws points with names and intervals, and a line through those of a frontier. `styles` are the legend's."""
    if not points:
        return _empty(title)
    horizontal = _scale(
        [value for one in points for value in (one.x, *(one.x_interval or ()))], LEFT, WIDTH - RIGHT, from_zero=True
    )
    vertical = _scale(
        [value for one in points for value in (one.y, *(one.y_interval or ()))], HEIGHT - BOTTOM, TOP, from_zero=True
    )
    shapes = [shape for one in points for shape in _dot(one, horizontal, vertical, x, y)]
    shapes += _names(points, horizontal, vertical)
    if len(frontier) > 1:
        path = " ".join(f"{horizontal(one.x)},{vertical(one.y)}" for one in sorted(frontier, key=lambda one: one.x))
        shapes.insert(0, Markup('<polyline class="line series-5" stroke-dasharray="4 4" points="{}"/>').format(path))
    rows = [(one.name, x.write(one.x), y.write(one.y)) for one in points]
    axes, table = frame(horizontal, vertical, x, y), _table(("", x.label, y.label), rows)
    return _figure(title, axes, shapes, legend(styles), table)


def bar_plot(title: str, bars: Sequence[Bar], value: Axis) -> Markup:
    """Draws horizontal bars of parts, and their sums. A part that has its bar's name needs no legend."""
    if not bars:
        return _empty(title)
    row, label_width = 30.0, 150.0
    height = row * len(bars) + 8
    most = max(sum(amount for _, amount, _ in bar.parts) for bar in bars) or 1.0
    along = Scale(0.0, most, label_width, WIDTH - 90.0)
    shapes = []
    for number, bar in enumerate(bars):
        top = number * row + 6
        shapes.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                label_width - 8, top + 15, _shortened(bar.name, 22)
            )
        )
        before = 0.0
        for name, amount, style in bar.parts:
            width = max(0.0, round(along(before + amount) - along(before), 2))
            shapes.append(
                Markup(
                    '<rect class="bar {}" x="{}" y="{}" width="{}" height="20"><title>{}: {}: {}</title></rect>'
                ).format(style, along(before), top, width, bar.name, name, value.write(amount))
            )
            before += amount
        shapes.append(Markup('<text x="{}" y="{}">{}</text>').format(along(before) + 6, top + 15, value.write(before)))
    rows = [(bar.name, name, value.write(amount)) for bar in bars for name, amount, _ in bar.parts]
    names = {name: style for bar in bars for name, _, style in bar.parts if name != bar.name}
    shown = legend([Series(name, (), style) for name, style in names.items()])
    return _figure(title, Markup(), shapes, shown, _table(("", "", value.label), rows), height=height)


def span_plot(title: str, spans: Sequence[Span], low: float, high: float, styles: Sequence[Series]) -> Markup:
    """Draws spans on a time line from low to high, each in a row of its own. `styles` are those of the legend."""
    if not spans:
        return _empty(title)
    row = 18.0
    height = row * len(spans) + 34
    along = Scale(low, high, 150.0, WIDTH - 20.0)
    shapes = []
    for tick in time_ticks(low, high):
        shapes.append(_RULE.format(along(tick), along(tick), 4, height - 26))
        shapes.append(_below(along(tick), height - 10, clock(tick, along)))
    for number, span in enumerate(spans):
        top = number * row + 6
        begin, end = along(max(low, span.begin)), along(min(high, span.end))
        shapes.append(
            Markup(
                '<text x="142" y="{}" text-anchor="end">{}</text>'
                '<rect class="bar {}" x="{}" y="{}" width="{}" height="10"><title>{}</title></rect>'
            ).format(top + 10, _shortened(span.name, 20), span.style, begin, top, max(2.0, end - begin), span.title)
        )
        if span.mark:
            shapes.append(Markup('<text x="{}" y="{}">{}</text>').format(end + 3, top + 10, span.mark))
    rows = [(span.name, span.title) for span in spans]
    return _figure(title, Markup(), shapes, legend(styles), _table(("", ""), rows), height=height)


def interval_plot(title: str, rows: Sequence[Ranged], value: Axis) -> Markup:
    """Draws a row for each value with its interval. An interval ends with an arrow where it goes on beyond the plot."""
    if not rows:
        return _empty(title)
    step, label_width = 26.0, 170.0
    bottom = step * len(rows) + 8
    most = max(one.value for one in rows)
    reach = max([most, *(min(one.high, 3 * most) for one in rows if one.high is not None)])
    along = Scale(0.0, reach * 1.05 or 1.0, label_width, WIDTH - 20.0)
    shapes = [shape for number, one in enumerate(rows) for shape in _ranged(one, number * step + 16, along, value)]
    axes = Markup().join(
        _RULE.format(along(tick), along(tick), 2, bottom) + _below(along(tick), bottom + 14, value.write(tick))
        for tick in value.ticks(0.0, along.high)
    )
    label = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
        (label_width + WIDTH - 20) / 2, bottom + 32, value.label
    )
    cells = [(one.name, value.write(one.value), _ends(one, value)) for one in rows]
    table = _table(("", value.label, "95 % interval"), cells)
    return _figure(title, axes + label, shapes, Markup(), table, height=bottom + 38)


def frame(horizontal: Scale, vertical: Scale, x: Axis, y: Axis) -> Markup:
    """Draws both axes with their ticks and labels."""
    parts = []
    for tick in y.ticks(vertical.low, vertical.high):
        at = vertical(tick)
        parts.append(Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, at, at))
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 6, at + 4, y.write(tick)))
    for tick in x.ticks(horizontal.low, horizontal.high):
        written = clock(tick, horizontal, x.step_s) if x.is_time else x.write(tick)
        parts.append(_below(horizontal(tick), HEIGHT - BOTTOM + 16, written))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, HEIGHT - 6, x.label))
    parts.append(Markup('<text x="4" y="12">{}</text>').format(y.label))
    return Markup().join(parts)


def _below(at: float, height: float, words: str) -> Markup:
    """Writes the label of a tick, centred if that does not cut it off at the right edge."""
    is_cut = at + len(words) * _LETTER / 2 > WIDTH
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
        WIDTH - 1 if is_cut else at, height, "end" if is_cut else "middle", words
    )


def ticks(low: float, high: float) -> list[float]:
    """Returns about five round values between low and high: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough)) if rough else 0.0
    if not power:
        return [low]
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def time_ticks(low: float, high: float, least_s: float = 1) -> list[float]:
    """Returns up to seven round moments, in Unix time, at least so many seconds apart."""
    rough = max((high - low) / _NUM_TICKS, least_s)
    step = next((step for step in _TIME_STEPS if step >= rough), 86_400 * math.ceil(rough / 86_400))
    first = math.ceil(low / step)
    return [float(number * step) for number in range(first, math.floor(high / step) + 1)]


def duration_ticks(low: float, high: float) -> list[float]:
    """Returns up to seven durations that are round in seconds, minutes, hours or days."""
    return time_ticks(low, high) if high - low > 2 * _NUM_TICKS else ticks(low, high)


def clock(unix: float, scale: Scale, step_s: int = 1) -> str:
    """Writes a moment as short as the time that an axis covers allows; a date where each point stands for a day."""
    span = max(scale.high - scale.low, 2 * step_s)
    form = "%H:%M:%S" if span < 600 else "%H:%M" if span < 2 * 86_400 else "%b %-d"
    return datetime.fromtimestamp(unix, UTC).strftime(form)


def legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup()
    items = [Markup('<li class="{}"><span>{}</span></li>').format(one.style, one.name) for one in series]
    return Markup('<ul class="legend">{}</ul>').format(Markup().join(items))


def _line(one: Series, horizontal: Scale, vertical: Scale, y: Axis, *, is_filled: bool) -> Iterable[Markup]:
    if not one.points:
        return
    places = [(horizontal(a), vertical(b)) for a, b in one.points]
    path = " ".join(f"{a},{b}" for a, b in places)
    title = f"{one.name}: {y.write(one.points[-1][1])} at the end"
    if is_filled:
        base = vertical(max(0.0, vertical.low))
        yield Markup('<polygon class="area {}" points="{}"/>').format(
            one.style, f"{places[0][0]},{base} {path} {places[-1][0]},{base}"
        )
    yield Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(one.style, path, title)
    if len(places) < 3:
        for place in places:
            yield Markup('<circle class="dot {}" cx="{}" cy="{}" r="4.5"/>').format(one.style, *place)


def _dot(one: Point, horizontal: Scale, vertical: Scale, x: Axis, y: Axis) -> Iterable[Markup]:
    across, up = horizontal(one.x), vertical(one.y)
    if one.x_interval is not None:
        low, high = map(horizontal, one.x_interval)
        yield _WHISKER.format(one.style, low, high, up, up)
    if one.y_interval is not None:
        low, high = map(vertical, one.y_interval)
        yield _WHISKER.format(one.style, across, across, low, high)
    yield Markup('<circle class="dot {}" cx="{}" cy="{}" r="5"><title>{}: {}, {}</title></circle>').format(
        one.style, across, up, one.name, x.write(one.x), y.write(one.y)
    )


def _names(points: Sequence[Point], horizontal: Scale, vertical: Scale) -> Iterable[Markup]:
    """Writes each name where it covers nothing: below a rising frontier first. One without such a place has none."""
    taken = [_Box(horizontal(one.x), vertical(one.y), 10.0, 10.0) for one in points]
    for one in filter(lambda one: one.is_labelled, points):
        across, up, name = horizontal(one.x), vertical(one.y), _shortened(one.name, 28)
        width = len(name) * _LETTER
        for anchor, down in (("start", 16), ("end", -8), ("start", -8), ("end", 16)):
            begin = across + 8 if anchor == "start" else across - 8 - width
            box = _Box(begin + width / 2, up + down - 4, width, 13.0)
            if box.is_within_frame and not any(map(box.meets, taken)):
                taken.append(box)
                place = across + (8 if anchor == "start" else -8)
                yield _NAME.format(place, up + down, anchor, name)
                break


def _ranged(one: Ranged, middle: float, along: Scale, value: Axis) -> Iterable[Markup]:
    yield Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
        along.begin - 8, middle + 4, _shortened(one.name, 25)
    )
    if one.low is not None:
        high = along.high if one.high is None else min(one.high, along.high)
        yield _WHISKER.format(one.style, along(one.low), along(high), middle, middle)
        if one.high is None or one.high > along.high:
            yield Markup('<polygon class="bar {}" points="{},{} {},{} {},{}"/>').format(
                one.style, along.end, middle - 4, along.end, middle + 4, along.end + 7, middle
            )
    yield Markup('<circle class="dot {}" cx="{}" cy="{}" r="4.5"><title>{}: {}, {}</title></circle>').format(
        one.style, along(one.value), middle, one.name, value.write(one.value), _ends(one, value)
    )


def _ends(one: Ranged, value: Axis) -> str:
    if one.low is None:
        return "–"
    low = value.write(one.low)
    return f"from {low}" if one.high is None else f"{low} to {value.write(one.high)}"


def _scale(values: Sequence[float], begin: float, end: float, *, from_zero: bool) -> Scale:
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(0.0, low), max(0.0, high) * 1.05
    return Scale(low, high if high > low else low + 1.0, begin, end)


def _figure(
    title: str, axes: Markup, shapes: Iterable[Markup], legend: Markup, table: Markup, *, height: float = HEIGHT
) -> Markup:
    return Markup(
        '<figure><figcaption>{title}</figcaption><div class="picture" tabindex="0" role="group" aria-label="{title}">'
        '<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{title}">{axes}{shapes}</svg>'
        "</div>{legend}"
        '<details class="data"><summary>Data</summary>{table}</details></figure>'
    ).format(
        title=escape(title),
        width=WIDTH,
        height=height,
        axes=axes,
        shapes=Markup().join(shapes),
        legend=legend,
        table=table,
    )


def _empty(title: str) -> Markup:
    return Markup('<figure><figcaption>{}</figcaption><p class="faint">Nothing to show yet.</p></figure>').format(title)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    top = Markup().join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    body = Markup().join(
        Markup("<tr>{}</tr>").format(Markup().join(Markup("<td>{}</td>").format(cell) for cell in row)) for row in rows
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="Data"><table><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(top, body)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
