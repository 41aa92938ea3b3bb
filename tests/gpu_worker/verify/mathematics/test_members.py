"""The members of a list and their names."""

from __future__ import annotations

import pytest

from ponder_worker.answers.parts import Parts
from ponder_worker.verify.mathematics.members import by_name, can_be_numbered, members, names, union


def test_both_signs_are_two() -> None:
    assert members([r"1 \pm 2"]) == ["1 + 2", "1 - 2"] or members([r"1 \pm 2"]) == ["1 +2", "1 -2"]
    assert members([r"\pm x \mp 1"])[1].startswith("-")


def test_a_name_is_that_of_all_until_the_next() -> None:
    assert members(["x = 1", "2", "y = 3", "4"]) == ["x = 1", "x = 2", "y = 3", "y = 4"]
    assert members(["1", "x = 2", "none"]) == ["1", "x = 2", "none"]


def test_names_say_which_item_is_which() -> None:
    assert names(["b = 1", "a = 2", "3"]) == ["b", "a"]
    assert can_be_numbered(["a = 1", "b = 2"])
    assert not can_be_numbered(["b = 1", "a = 2"])


def test_a_pair_of_names_is_two_equations() -> None:
    assert by_name("(a, b) = (1, 2)") == Parts("list", ("a = 1", "b = 2"))


@pytest.mark.parametrize("text", ["(a, b)", "(a, b) = (1, 2, 3)", "(1, 2) = (a, b)", "a = 1", "(a, b) = c"])
def test_anything_else_is_none(text: str) -> None:
    assert by_name(text) is None


def test_a_union_has_its_intervals() -> None:
    assert union(r"(0, 1) \cup [2, 3]") == ["(0, 1)", "[2, 3]"]
    assert union(r"A \cup B") is None
