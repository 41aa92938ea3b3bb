"""A number in any of its writings."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.numeral import read_european, read_lone_number, read_numeral


def value(text: str) -> Fraction | None:
    numeral = read_numeral(text)
    return None if numeral is None else numeral.value


def grouped(separator: str) -> Callable[[int], str]:
    return lambda number: f"{number:,}".replace(",", separator)


WRITINGS: list[Callable[[int], str]] = [
    str,
    "{}.0".format,
    "{:,}".format,
    grouped(" "),
    grouped(r"\,"),
    grouped("{,}"),
    grouped(r",\!"),
    grouped("\u202f"),
    "${}$".format,
    r"\$ {}".format,
    r"\({}\)".format,
    r"\text{{{}}}".format,
    r"{} \text{{ apples}}".format,
    "{} km".format,
    "{}%".format,
    r"{}^\circ".format,
    r"\frac{{{}}}{{1}}".format,
    "{}/1".format,
    "{}e0".format,
    r"{} \times 10^0".format,
    "€{}".format,
    "**{}**".format,
    "000{}".format,
    lambda number: str(number).translate({ord("0") + digit: chr(0x966 + digit) for digit in range(10)}),
    lambda number: str(number).translate({ord("0") + digit: chr(0xFF10 + digit) for digit in range(10)}),
]


@given(st.integers(0, 10**12), st.sampled_from(WRITINGS))
def test_a_number_is_the_same_in_every_writing(number: int, write: Callable[[int], str]) -> None:
    assert value(write(number)) == number


@given(st.integers(0, 10**12), st.sampled_from("-−－‐–"))
def test_a_minus_is_a_minus_however_it_is_written(number: int, minus: str) -> None:
    assert value(f"{minus}{number}") == -number
    assert value(f"{minus}${number}") == -number


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=1000))
def test_fractions_are_exact(number: Fraction) -> None:
    sign, over, under = "-" if number < 0 else "", abs(number.numerator), number.denominator
    assert value(f"{sign}{over}/{under}") == value(rf"{sign}\dfrac{{{over}}}{{{under}}}") == number
    whole, rest = divmod(over, under)
    assert value(rf"{sign}{whole}\frac{{{rest}}}{{{under}}}") == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.39e9", Fraction(1390000000)),
        ("1.39e-10", Fraction(139, 10**12)),
        (r"1.39 \times 10^{-10}", Fraction(139, 10**12)),
        ("6e13", Fraction(6 * 10**13)),
        ("10^{-3}", Fraction(1, 1000)),
        ("½", Fraction(1, 2)),
        ("2½", Fraction(5, 2)),
        (r"\frac43", Fraction(4, 3)),
        (r"\frac 59", Fraction(5, 9)),
        ("-1./3", Fraction(-1, 3)),
        ("1 1/2", Fraction(3, 2)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("1.5 million", Fraction(1500000)),
        (r"15\mbox{ cm}^2", Fraction(15)),
        ("-$5", Fraction(-5)),
        ("$5 dollars", Fraction(5)),
        ("$12 per hour", Fraction(12)),
        (".5", Fraction(1, 2)),
    ],
)
def test_what_a_number_can_look_like(text: str, expected: Fraction) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5x",
        "x",
        "3 and 5",
        "12:00",
        "52_8",
        "3!",
        "5 x",
        "2\\pi",
        "6 - 5i",
        "1, 2",
        "32, 349",
        "1/0",
        "1e99999",
        "$5 km",
        "€5 dollars",
        "5xyz",
        "12A",
    ],
)
def test_what_is_more_than_a_number_is_none(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000,99", Fraction("1000.99")),
        ("0,111", Fraction("0.111")),
        ("1.234,56", Fraction("1234.56")),
        ("1,234", None),
    ],
)
def test_a_comma_before_decimals_is_read_where_it_can_be_nothing_else(text: str, expected: Fraction | None) -> None:
    assert read_european(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("She makes $18 a day", 18), ("3 or 4 apples", None), ("x has 3 roots", None), ("model T2 has wheels", None)],
)
def test_among_words_one_number_is_the_number(text: str, expected: int | None) -> None:
    assert read_lone_number(text) == expected


@given(st.text(alphabet="0123456789.,eE+-/ $%\\{}^frac_xmk€½√ ", max_size=40))
def test_reading_a_number_never_raises(text: str) -> None:
    read_numeral(text)
    read_european(text)
    read_lone_number(text)


@pytest.mark.parametrize(
    ("text", "places", "num_digits"), [("3.10", 2, 3), ("0.05", 2, 1), ("3", None, 0), ("1e3", None, 0)]
)
def test_the_digits_that_are_written_tell_how_a_number_was_rounded(
    text: str, places: int | None, num_digits: int
) -> None:
    numeral = read_numeral(text)
    assert numeral is not None
    assert (numeral.places, numeral.num_digits) == (places, num_digits)
