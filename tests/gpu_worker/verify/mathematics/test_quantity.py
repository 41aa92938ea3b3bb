"""Quantities: numbers and formulas with units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.unit import Unit
from ponder_worker.verify.mathematics.quantity import split_unit


@pytest.mark.parametrize(
    ("text", "body", "name"),
    [(r"2\pi \text{ cm}^2", r"2\pi", "cm^2"), (r"30^\circ", "30", "degree"), (r"\sqrt{2} km", r"\sqrt{2}", "km")],
)
def test_a_formula_is_read_without_its_unit(text: str, body: str, name: str) -> None:
    assert (split_unit(text)[0], split_unit(text)[1].name) == (body, name)


@pytest.mark.parametrize("text", [r"\cos 30^\circ", "x^2", "2 +", "5x"])
def test_a_formula_without_a_unit_stays_whole(text: str) -> None:
    assert split_unit(text) == (text, Unit())


@given(st.text(max_size=100))
def test_a_text_without_its_unit_is_no_longer(text: str) -> None:
    assert len(split_unit(text)[0]) <= len(text)
