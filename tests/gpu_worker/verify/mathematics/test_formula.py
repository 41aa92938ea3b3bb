"""Mathematics as the parser reads it."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.writing import plain
from ponder_worker.verify.mathematics.formula import Unreadable, parse, prepare


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", sympy.Rational(1, 10)),
        ("1.5e3", sympy.Integer(1500)),
        (r"\frac12", sympy.Rational(1, 2)),
        ("i^2", sympy.Integer(-1)),
        (r"\binom52", sympy.Integer(10)),
        ("C(10, 3)", sympy.Integer(120)),
        (r"\lg 100", sympy.Integer(2)),
        ("∛8", sympy.Integer(2)),
        ("2**10", sympy.Integer(1024)),
    ],
)
def test_numbers_are_exact(text: str, value: sympy.Expr) -> None:
    assert sympy.simplify(parse(plain(text)) - value) == 0


@pytest.mark.parametrize(
    ("text", "num_symbols"),
    [
        (r"\gamma + 1", 1),
        (r"\gamma+1", 1),
        (r"\vec{a} + \vec b", 2),
        (r"\frac{dy}{dx}", 1),
        (r"\bar{x}_1 + x_1", 2),
        ("f'(x)", 1),
    ],
)
def test_letters_stay_letters(text: str, num_symbols: int) -> None:
    assert len(parse(plain(text)).free_symbols) == num_symbols


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12 34",
        "52_8",
        r"1, 2, \ldots",
        "two words",
        r"A \times B",
        r"\vec a \times \vec b",
        "1/2x",
        r"\frac{1}{",
        "2024-01-02",
    ],
)
def test_what_a_parser_would_read_otherwise_than_people_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(plain(text))


@given(st.text(alphabet="xyi0123456789+-*/^_(){}[]\\ .,=<>!", max_size=30))
def test_whatever_is_written_is_read_or_unreadable(text: str) -> None:
    try:
        parse(plain(text))
    except Unreadable:
        return


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("sqrt(2)", r"\sqrt {2}"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\binom52", r"\binom{5}{2}"),
        ("x^10", "x^{10}"),
        ("x**2", "x^{2}"),
        ("1.5e3", r"1.5 \times 10^{3}"),
        (".5x", "0.5x"),
        ("3.", "3"),
        (r"\cos 60^\circ", r"\cos (60 \cdot \frac{\pi}{180})"),
        ("1,234x", "1234x"),
        (r"\log_2 8", r"\log_{2} 8"),
        (r"\int_0^12x dx", r"\int_0^{1} 2x dx"),
        ("f'", "f_{prime}"),
        (r"\vec a", "a_{veca}"),
    ],
)
def test_short_forms_are_written_out(text: str, prepared: str) -> None:
    assert prepare(text) == prepared


@pytest.mark.parametrize("text", ["1 2", "52_8", "1/2x", "x/3(y)", r"A \times B", "a long sentence", "x" * 2_001])
def test_what_a_parser_would_misread_is_kept_from_it(text: str) -> None:
    assert prepare(text) is None


@given(st.text())
def test_preparing_never_raises(text: str) -> None:
    prepare(text)
