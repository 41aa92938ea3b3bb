"""Plain writing made into LaTeX that a parser reads as a person does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.verify.mathematics.latex import prepare


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
