"""Boxes in which a text marks its answer, and labels behind which it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.mark import announced, boxed


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


def following(text: str) -> list[str]:
    return [text[place:].strip() for place in announced(text)]


@pytest.mark.parametrize(
    "label",
    [
        "Answer: ", "Answer:\n", "**Answer:** ", "The answer is ", "The final answer is: ", "Final answer = ", "#### ",
        "## Final Answer\n", "So the answer to part 2 is ", "The answers are ", "Ans: ", "A: ", "| Answer | ", "答案：",
        "Antwort: ", "La réponse est ", '{"answer": ', "answer -> ", "The correct answer is therefore ", "[ANSWER] ",
        "[Final Answer]\n",
    ],
)  # fmt: skip
def test_a_label_announces_what_follows_it(label: str) -> None:
    assert following(f"We get 3 + 4 = 7.\n{label}7")[0].startswith("7")


@pytest.mark.parametrize(
    "text",
    [
        "The answer is not 5",
        "The answer is in the form a + b",
        "The answer is unknown",
        "Let me check the answer: 5",
        "#### Step 2\nWe add.",
        "Answering is hard: 5 times",
        "See [the answer](5)",
        "no mark at all: 5",
    ],
)
def test_what_only_speaks_of_answers_announces_none(text: str) -> None:
    assert following(text) == []


def test_the_last_label_comes_first() -> None:
    assert following("Answer: 5\nNo.\nThe answer is 6.\n") == ["6.", "5\nNo.\nThe answer is 6."]


@given(st.text())
def test_labels_stand_within_the_text_and_the_last_line_comes_first(text: str) -> None:
    places = list(announced(text))
    assert all(0 <= place <= len(text) for place in places)
    lines = [text.count("\n", 0, place) for place in places]
    assert lines == sorted(lines, reverse=True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{3} and \boxed{7}", "3, 7"),
        (r"\boxed{3} and \boxed{7} = \boxed{7}", "3, 7"),
        (r"\boxed{3} and \boxed{7} " + "because of this " * 6 + r"\boxed{7}", "7"),
        (r"\boxed{1}, \boxed{\boxed{2}}", "1, 2"),
        (r"\boxed{\boxed{1}}, \boxed{2}", "1, 2"),
    ],
)
def test_boxes_right_after_one_another_are_one_answer(text: str, answer: str) -> None:
    assert boxed(text) == answer
