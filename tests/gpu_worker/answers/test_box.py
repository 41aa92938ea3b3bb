"""The content of boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.box import boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{7}", "7"),
        (r"so \boxed 7.", "7"),
        (r"so \fbox{7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a \boxed{b} c}", "b"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2} or \boxed{3}", "1, 2, 3"),
        (r"First \boxed{1}. Then \boxed{2}.", "2"),
        (r"\boxed{3} apples and \boxed{4} pears", "3, 4"),
        (r"\boxed{1}, so the answer is \boxed{2}", "2"),
        (r"It is \boxed{5}. Indeed, \boxed{5}", "5"),
        (r"\boxed{6}\text{ cm}", r"6\text{ cm}"),
        (r"\boxed{6}\text{ is it}", "6"),
        (r"x = -\boxed{2}", "-2"),
        (r"8-\boxed{2}", "2"),
    ],
)
def test_the_last_box_is_read_with_those_that_belong_to_it(text: str, content: str) -> None:
    assert boxed(text) == content


@pytest.mark.parametrize("text", ["", "no box", r"\boxed{}", r"\boxed{ }", r"\boxed{12", r"\boxes{12}"])
def test_a_box_that_holds_nothing_or_does_not_close_is_none(text: str) -> None:
    assert boxed(text) is None


@given(st.text(st.characters(codec="ascii", exclude_characters="{}\\"), min_size=1).filter(str.strip))
def test_whatever_stands_in_a_box_is_its_content(content: str) -> None:
    assert boxed(rf"Thus \boxed{{{content}}} is it.") == content.strip()


@given(st.text())
def test_any_text_has_boxes_or_none(text: str) -> None:
    assert boxed(text) is None or "box" in text or "\x08oxed" in text
