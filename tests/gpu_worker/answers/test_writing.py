"""Other scripts and typography."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.writing import as_ascii, plain


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("−５", "-5"),
        ("x²", "x^{2}"),
        ("2½", r"2\frac{1}{2}"),
        ("√12", r"\sqrt{12}"),
        ("∛8", r"\sqrt[3]{8}"),
        ("∜(x)", r"\sqrt[4](x)"),
        ("π", r"\pi "),
        ("25¢", "25 cents "),
        ("x₁", "x_{1}"),
        ("naïve", "naïve"),
    ],
)
def test_signs_are_written_as_latex(text: str, written: str) -> None:
    assert as_ascii(text) == written


@given(st.text(st.characters(codec="ascii")))
def test_ascii_stays_as_it_is(text: str) -> None:
    assert as_ascii(text) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("$5 million", "USD 5 million"),
        ("-$5", "-USD 5"),
        ("$5", "USD 5"),
        ("x $5", "x 5"),
        ("{{a}}", "a"),
        ("{{{{a}}}}", "a"),
        ("{a}+{b}", "{a}+{b}"),
        ("{a}{b}", "{a}{b}"),
        (r"\left( 1, 2 \right)", "( 1, 2 )"),
        ("about $5", "5"),
        ("5~cm", "5 cm"),
        (r"\begin{cases}1\\2\end{cases}", r"\begin{cases}1\\2\end{cases}"),
    ],
)
def test_delimiters_are_left_out_and_a_lone_dollar_is_money(text: str, written: str) -> None:
    assert plain(text) == written
