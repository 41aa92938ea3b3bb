"""Plots stay inside their frame and quote what they are given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from ponder.bench.report.svg_plot import Dot, Series, plot

NUMBERS = st.floats(1e-6, 1e9, allow_nan=False)
DOTS = st.lists(
    st.builds(lambda x, y, part: Dot(x, y, y * part, y / part), NUMBERS, NUMBERS, st.floats(0.1, 1)), max_size=6
)


@given(DOTS, DOTS, st.booleans())
def test_every_mark_is_inside_the_picture(one: list[Dot], other: list[Dot], log_x: bool) -> None:
    svg = plot([Series("one", one), Series("other", other, has_marks=False)], x="x", y="y", log_x=log_x)
    assert bool(svg) == bool(one + other)
    if svg:
        root = ElementTree.fromstring(svg)
        width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
        for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height
        for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
            assert all(-1 <= float(part) <= width for part in re.split("[ ,]", line.attrib["points"]))


def test_names_are_escaped_and_long_ones_cut_with_the_whole_name_beside_them() -> None:
    name = "<b>" + "a very long name of a cell"
    root = ElementTree.fromstring(plot([Series(name, [Dot(1, 2)])], x="a & b", y="c"))
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith(name) and text.endswith("… of a cell") for text in texts)
    assert "a & b" in texts
