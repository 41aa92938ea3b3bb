"""Answers whose writing counts."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.verify.mathematics.written import counts_as_written, same_writing


def same(one: str, other: str) -> bool | None:
    return same_writing(one, other, operator.eq)


@given(st.lists(st.sampled_from("acmnpqrstvwyz"), min_size=2, max_size=3, unique=True), st.permutations([0, 1, 2]))
def test_a_product_is_one_however_it_is_written(letters: list[str], order: list[int]) -> None:
    word, other = "".join(letters), [letters[place] for place in order if place < len(letters)]
    for sign in (r" \cdot ", r" \times ", "*"):
        assert same(word, sign.join(letters))
        assert same(sign.join(other), word)


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("yes", "Yes", False),
        ("seat", "east", False),
        ("no", "on", False),
        ("to day", "today", False),
        ("AB", r"A \cdot B", True),
        ("BA", r"A \cdot B", False),
        ("abcd", r"a \cdot b \cdot c \cdot d", True),
        ("ab", "2ab/2", None),
        ("x", "y", None),
        ("(1011)_2", "1011_{2}", True),
        ("1011_2", "1011_3", False),
        ("10:20", "1:2", False),
        ("8:30 am", "8:30", True),
        ("8:30 am", "8:30 pm", False),
        ("3:30", "330", False),
    ],
)
def test_writing_decides_or_leaves_it_to_the_parser(one: str, other: str, verdict: bool | None) -> None:
    assert same(one, other) is verdict


def test_ratios_times_and_numbers_to_a_base_count_as_they_are_written() -> None:
    assert all(map(counts_as_written, ["3:4", "8:30 p.m.", "52_8", "(1011)_2"]))
    assert not any(map(counts_as_written, ["3", "x_2", "a:b"]))
