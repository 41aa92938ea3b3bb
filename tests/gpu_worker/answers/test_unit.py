"""Units and other words beside a number."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.unit import Unit, read_unit

UNITS = [
    ["cm", "centimeters", "centimetre", r"\text{ cm}", "cm."],
    ["m", "meters", "metre", r"\text{ m}"],
    ["m^2", "square meters", "sq m", r"\text{ m}^2"],
    ["m^3", "cubic meters", "cu m"],
    ["km/h", "kilometers per hour", r"\text{ km/h}", "km / hr"],
    ["m/s", "m s^{-1}", r"\text{m}\cdot\text{s}^{-1}"],
    ["m/s^2", "m s^{-2}", "meters per second squared", "meters per square second"],
    ["m^2/s", "square meters per second"],
    ["miles", "mi", "mile"],
    ["nautical miles"],
    ["years", "yr", "year"],
    ["light years", "light year"],
    ["dollars", "USD", "dollar"],
    ["cents", "cent"],
    ["€", "euros", "EUR"],
    ["kg", "kilograms"],
    ["g", "grams"],
    ["hours", "h", "hrs"],
    ["minutes", "min"],
    ["degrees", r"^\circ", r"^{\circ}", "deg"],
    ["radians", "rad"],
    ["J", "joules"],
    ["Hz", "hertz"],
    ["kHz"],
]
SAME = [pair for names in UNITS for pair in itertools.product(names, repeat=2)]
DIFFERENT = [pair for one, other in itertools.permutations(UNITS, 2) for pair in itertools.product(one, other)]


def unit(text: str) -> Unit:
    found = read_unit(text)
    assert found is not None, text
    return found


@given(st.sampled_from(SAME))
def test_a_unit_is_the_same_in_every_writing(pair: tuple[str, str]) -> None:
    assert unit(pair[0]).fits(unit(pair[1]))


@given(st.sampled_from(DIFFERENT))
def test_different_units_never_fit(pair: tuple[str, str]) -> None:
    assert not unit(pair[0]).fits(unit(pair[1]))


@given(st.sampled_from([name for names in UNITS for name in names]))
def test_every_unit_may_be_left_out(name: str) -> None:
    assert unit(name).fits(Unit())
    assert Unit().fits(unit(name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("apples", "red apples"),
        ("cups", "cups of tea"),
        ("years", "full years"),
        ("apples", "(apples)"),
        ("%", "percent"),
    ],
)
def test_one_side_may_say_more(one: str, other: str) -> None:
    assert unit(one).fits(unit(other))
    assert unit(other).fits(unit(one))


def test_a_share_is_no_amount_of_anything() -> None:
    assert not unit("%").fits(unit("dollars"))
    assert unit("%").fits(unit(""))
    assert unit("% of the class").fits(unit("percent"))


TURNING = st.sampled_from(["below zero", "down", "less", "minus one", "times", "or more", "under par"])


@given(st.sampled_from(["", "degrees ", "meters ", "points ", "apples "]), TURNING)
def test_words_that_make_it_another_number_are_no_unit(name: str, turning: str) -> None:
    assert read_unit(name + turning) is None


@pytest.mark.parametrize(
    "text",
    [
        "halves",
        "thirds",
        "squared",
        "of x",
        "x",
        "and 6",
        "to 7",
        "+ 1",
        "^2",
        "pi",
        "mod 7",
        "factorial",
    ],
)
def test_what_belongs_to_the_mathematics_is_no_unit(text: str) -> None:
    assert read_unit(text) is None


@pytest.mark.parametrize(("text", "is_there"), [("", False), ("cm", True), ("apples", True), ("%", True)])
def test_whether_a_number_has_a_unit_is_known(text: str, is_there: bool) -> None:
    assert unit(text).is_there == is_there


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("dozen eggs", 12),
        ("hundred", 100),
        ("thousand people", 1_000),
        ("million dollars", 1_000_000),
        ("billion", 1_000_000_000),
        ("trillion", 1_000_000_000_000),
        ("eggs", 1),
    ],
)
def test_a_dozen_or_a_million_scales_the_number(text: str, scale: int) -> None:
    assert unit(text).scale == scale


@given(st.text(max_size=100))
def test_reading_a_unit_never_raises(text: str) -> None:
    read_unit(text)
