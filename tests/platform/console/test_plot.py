"""Plots: that they are well-formed, show what they are given, and obey nothing in it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hostile_text import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from ponder.console.plot import (
    Axis,
    Bar,
    Point,
    Ranged,
    Series,
    bar_plot,
    duration_ticks,
    interval_plot,
    line_plot,
    scatter_plot,
    ticks,
    time_ticks,
)

_VALUES = st.floats(-1e12, 1e12, allow_nan=False)
_AXIS = Axis("value")


def _texts(markup: str) -> str:
    return "".join(ElementTree.fromstring(markup).itertext())


@given(st.lists(st.tuples(_VALUES, _VALUES), max_size=20))
def test_any_line_is_drawn_within_its_frame(points: list[tuple[float, float]]) -> None:
    drawn = line_plot("A line", [Series("s", sorted(points))], Axis("x"), _AXIS)
    root = ElementTree.fromstring(drawn)
    for line in root.iter("polyline"):
        for place in line.attrib["points"].split():
            x, y = map(float, place.split(","))
            assert -1 <= x <= 521
            assert -1 <= y <= 241


@given(_VALUES, st.floats(1e-6, 1e12))
def test_ticks_are_few_round_and_in_order(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    assert marks == sorted(marks)
    assert len(marks) <= 8


@given(st.floats(0, 1e-300, exclude_min=True))
def test_a_span_too_small_for_steps_has_one_tick(high: float) -> None:
    assert len(ticks(0.0, high)) <= 8
    assert ticks(0.0, 5e-324) == [0.0]


@given(st.floats(0, 2e9), st.floats(1, 1e8))
def test_ticks_of_time_are_within_the_time(low: float, span: float) -> None:
    marks = time_ticks(low, low + span)
    assert len(marks) <= 7
    assert all(low - 1 <= mark <= low + span + 1 for mark in marks)


@given(st.integers(0, 20_000), st.sets(st.integers(0, 400), min_size=1, max_size=40))
def test_an_axis_of_days_has_dates_that_differ(first: int, days: set[int]) -> None:
    def written(unix: float) -> str:
        return datetime.fromtimestamp(unix, UTC).strftime("%b %-d")

    points = [(86_400.0 * (first + day), 1.0) for day in sorted(days)]
    drawn = line_plot("By day", [Series("s", points)], Axis("day", written, is_time=True, step_s=86_400), _AXIS)
    root = ElementTree.fromstring(drawn)
    marks = [text.text or "" for text in root.iter("text") if text.attrib.get("y") == "216.0"]
    assert 1 <= len(marks) <= 7
    assert all(re.fullmatch(r"[A-Z][a-z]{2} \d{1,2}", mark) for mark in marks)
    assert len(set(marks)) == len(marks)
    if len(points) == 1:
        assert written(points[0][0]) in marks


@given(st.floats(0, 1e7), st.floats(1e-3, 1e8))
def test_ticks_of_durations_are_few_and_round_in_their_units(low: float, span: float) -> None:
    marks = duration_ticks(low, low + span)
    assert marks == sorted(set(marks))
    assert 1 <= len(marks) <= 7 or span < 10
    assert all(low - 1e-6 * span <= mark <= low + span * 1.001 for mark in marks)
    if span > 10:
        steps = {second - first for first, second in pairwise(marks)}
        assert len(steps) <= 1
        for step in steps:
            unit = next(unit for unit in (86_400, 3_600, 60, 1) if step >= unit)
            assert step % unit == 0
            assert all(mark % step == 0 for mark in marks)
            assert unit == 86_400 or {86_400: 1, 3_600: 24, 60: 60, 1: 60}[unit] % (step // unit) == 0


def test_an_axis_of_durations_counts_in_minutes() -> None:
    axis = Axis("time", lambda value: f"{value / 60:.3g} min", is_duration=True)
    drawn = line_plot("Times", [Series("s", [(1, 0), (2, 590)])], _AXIS, axis)
    assert re.findall(r">([\d.]+ min)</text>", drawn) == ["0 min", "5 min", "10 min"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_shown_as_they_are(hostile: str) -> None:
    for drawn in (
        line_plot(hostile, [Series(hostile, [(0, 1)]), Series("b", [(0, 2)])], Axis(hostile), Axis(hostile)),
        scatter_plot(hostile, [Point(hostile, 1, 2)], Axis(hostile), Axis(hostile)),
        bar_plot(hostile, [Bar(hostile, [(hostile, 1, "series-1")])], Axis(hostile)),
    ):
        assert hostile in _texts(drawn)


def test_every_value_is_in_the_table_beside_the_picture() -> None:
    drawn = line_plot("Tokens", [Series("s", [(1, 10), (2, 4_321)])], Axis("x"), Axis("tokens"))
    assert "4321" in _texts(drawn)


def test_a_plot_of_nothing_says_so() -> None:
    assert "Nothing to show yet" in _texts(line_plot("A", [], _AXIS, _AXIS))
    assert "Nothing to show yet" in _texts(bar_plot("A", [], _AXIS))


@given(st.lists(st.tuples(_VALUES.map(abs), _VALUES.map(abs), st.none() | _VALUES.map(abs)), max_size=9))
def test_any_interval_is_drawn_within_its_frame(values: list[tuple[float, float, float | None]]) -> None:
    rows = [
        Ranged("a", value, max(0.0, value - reach), None if more is None else value + more)
        for value, reach, more in values
    ]
    root = ElementTree.fromstring(interval_plot("Intervals", rows, _AXIS))
    for circle in root.iter("circle"):
        assert 169 <= float(circle.attrib["cx"]) <= 501
    for line in root.iter("line"):
        assert 169 <= float(line.attrib["x1"]) <= float(line.attrib["x2"]) <= 501


def test_an_interval_without_an_end_has_an_arrow_and_says_where_it_begins() -> None:
    drawn = interval_plot("Costs", [Ranged("few", 2.0, 1.0, None), Ranged("many", 2.0, 1.5, 2.5)], _AXIS)
    assert drawn.count("<polygon") == 1
    assert "from 1" in _texts(drawn)
    assert "1.5 to 2.5" in _texts(drawn)


@given(st.lists(st.tuples(st.text("abcd ", max_size=40), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_names_of_points_do_not_cover_each_other_or_leave_the_picture(values: list[tuple[str, float, float]]) -> None:
    root = ElementTree.fromstring(scatter_plot("Points", [Point(*value) for value in values], _AXIS, _AXIS))
    places = []
    for text in root.iter("text"):
        if text.attrib.get("class") == "name":
            width, x, y = len(text.text or "") * 6.0, float(text.attrib["x"]), float(text.attrib["y"])
            places.append((x if text.attrib["text-anchor"] == "start" else x - width, y, width))
    assert places or len(values) > 1
    for number, (x, y, width) in enumerate(places):
        assert 0 <= x <= x + width <= 520
        assert all(abs(y - b) > 10 or x + width <= a or a + wide <= x for a, b, wide in places[:number])


@pytest.mark.parametrize("high", [99.0, 100.0, 104.9])
def test_the_last_tick_is_not_cut_off(high: float) -> None:
    axis = Axis("long", lambda value: f"{value:012.3f}")
    root = ElementTree.fromstring(line_plot("A", [Series("s", [(0, 1), (high, 2)])], axis, _AXIS))
    for text in root.iter("text"):
        half = 3 * len(text.text or "") * (text.attrib.get("text-anchor") == "middle")
        assert float(text.attrib["x"]) + half <= 520


def test_points_off_the_frontier_have_no_label_but_a_title() -> None:
    point = Point("hidden", 1.0, 1.0, is_labelled=False)
    root = ElementTree.fromstring(scatter_plot("Points", [point, Point("seen", 2.0, 2.0)], _AXIS, _AXIS))
    labels = [text.text for text in root.iter("text")]
    assert "seen" in labels
    assert "hidden" not in labels
    assert "hidden: 1, 1" in _texts(scatter_plot("Points", [point], _AXIS, _AXIS))
