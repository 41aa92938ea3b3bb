"""The items and sides of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.parts import Parts, Relation, split_parts, split_relation

ITEMS = st.lists(st.sampled_from(["1", "-2", "x", r"\frac{1}{2}", "f(x, y)", "(3, 4)", "[5, 6]", "a+b"]), min_size=2)


@given(ITEMS, st.sampled_from([", ", ",", "; ", " and ", " or ", r" \text{ and } "]))
def test_a_list_has_the_items_that_it_was_made_of(items: list[str], separator: str) -> None:
    assert split_parts(separator.join(items)) == Parts("list", tuple(items))


@given(ITEMS)
def test_brackets_say_what_the_items_are(items: list[str]) -> None:
    text = ", ".join(items)
    assert split_parts(f"({text})") == Parts("tuple", tuple(items), "(", ")")
    assert split_parts(rf"\{{{text}\}}") == Parts("set", tuple(items), r"\{", r"\}")


@pytest.mark.parametrize(
    ("text", "opening", "closing"), [("[0, 1)", "[", ")"), ("(0, 1]", "(", "]"), ("[0, 1]", "[", "]")]
)
def test_two_items_in_square_brackets_are_an_interval(text: str, opening: str, closing: str) -> None:
    assert split_parts(text) == Parts("interval", ("0", "1"), opening, closing)


@pytest.mark.parametrize("text", ["5", "x + 1", "f(x, y)", "(x+1)(x-1)", "(5)", "(1, 2", "1)", ""])
def test_what_lists_nothing_has_no_parts(text: str) -> None:
    assert split_parts(text) is None


def test_a_comma_between_digits_separates_thousands_where_others_have_blanks() -> None:
    assert split_parts("1,000, 2,000") == Parts("list", ("1,000", "2,000"))
    assert split_parts("(1,234, 5)") == Parts("tuple", ("1,234", "5"), "(", ")")


@pytest.mark.parametrize(
    ("text", "sides", "signs"),
    [
        ("x = 5", ("x", "5"), ("=",)),
        (r"2 < x \le 5", ("2", "x", "5"), ("<", "<=")),
        (r"x \in (0, 1)", ("x", "(0, 1)"), ("in",)),
        ("f(a=b) = 3", ("f(a=b)", "3"), ("=",)),
    ],
)
def test_a_relation_has_its_sides(text: str, sides: tuple[str, ...], signs: tuple[str, ...]) -> None:
    assert split_relation(text) == Relation(sides, signs)


@pytest.mark.parametrize("text", ["x", "= 5", "x =", "f(x = 5)", "(x = 5"])
def test_what_has_no_two_sides_is_no_relation(text: str) -> None:
    assert split_relation(text) is None


@given(st.text())
def test_splitting_never_raises(text: str) -> None:
    split_parts(text)
    split_relation(text)
