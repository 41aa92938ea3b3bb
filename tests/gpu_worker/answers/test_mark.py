"""Labels behind which a text marks its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.mark import announced


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
