"""Relations compared by the values that they allow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.answers.parts import split_relation
from ponder_worker.verify.mathematics.solution import contradicts_itself, same_solutions


@settings(max_examples=20)  # each takes a third of a second
@given(st.integers(-9, 9), st.integers(1, 9), st.sampled_from([", ", r" \text{ and } ", " and "]))
def test_a_chain_is_both_of_its_inequalities(start: int, length: int, joint: str) -> None:
    end = start + length
    assert same_solutions(f"{start} < x < {end}", f"x > {start}{joint}x < {end}")
    assert not same_solutions(f"{start} < x < {end}", f"x > {start}{joint}x < {end + 1}")
    assert not same_solutions(f"{start} < x < {end}", f"y > {start}{joint}y < {end}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x < -1, x > 1", r"x < -1 \text{ or } x > 1"),
        (r"x \ge 0, x \ne 3", r"[0, 3) \cup (3, \infty)"),
        (r"x \le -1 \text{ or } x \ge 1", r"|x| \ge 1"),
    ],
)
def test_alternatives_are_joined(one: str, other: str) -> None:
    assert same_solutions(one, other)
    assert same_solutions(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x > 5, x > 7", "x > 7"),
        ("x > 5, y < 7", "x > 5, x < 7"),
        ("x > 5, 7", "5 < x < 7"),
        ("x < 5", "x < 5"),
        ("1, 2", "1, 2"),
    ],
)
def test_what_is_not_several_inequalities_of_one_variable_is_left_to_others(one: str, other: str) -> None:
    assert not same_solutions(one, other)


@pytest.mark.parametrize(
    ("chain", "is_contradiction"),
    [("x = 3 + 1 = 2", True), ("x = 3 + 1 = 4", False), ("x = y = 3", False), ("x = 5", False), ("2 < x = 3", False)],
)
def test_numbers_of_a_chain_must_be_one(chain: str, is_contradiction: bool) -> None:
    relation = split_relation(chain)
    assert relation is not None
    assert contradicts_itself(relation) == is_contradiction
