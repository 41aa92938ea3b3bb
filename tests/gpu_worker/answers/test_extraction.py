"""The answer in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.answers.equality import number_of
from ponder_worker.answers.extraction import extract
from ponder_worker.answers.mark import of_reference


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("84 - 78 = 6\nAnswer: 6", "6"),
        ("Answer: 6\nAnswer: -7\n", "-7"),
        ("so 5 + 4 = 9\n#### 9", "9"),
        (r"thus \boxed{\frac{1}{2}}. It is also \boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"either \boxed{1} or \boxed{2}", "1, 2"),
        (r"The final answer is $\boxed{14{,}916}$. I hope it is correct.", r"14{,}916"),
        ("**Answer:** 12.", "12"),
        ("The answer is $42$.", "42"),
        ("we get 3, then 1,234.5", "1,234.5"),
        ("<think>Answer: 3</think>It is 4", "4"),
        (r"an open \boxed{1", "1"),
        ("nothing at all", None),
        ("17 - 6", None),
        ("12 + 5 = ", None),
        ("the 5-3 lead", None),
        ("so it is minus 5", "minus 5"),
        ("He has 7 thirds.", "7 thirds"),
        ("It takes 12+ hours", "12+"),
        ("Answer:\n- 42", "42"),
        ("The answer is **42** apples.", "42 apples"),
        ("", None),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{a \boxed{b} c}", "b"),
        ("} Answer : ** 5", "5"),
        ("we have $x = 4$, so 7 apples", "7"),
        ("There are 12 cats in $n$ rooms", "12"),
        ("so it is $5$.", "5"),
        ("so it costs $5.", "$5"),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("She sold 72 clips.\n#### 72", "72"), ("x^2 + 1", "x^2 + 1"), (r"$\boxed{7}$", "7"), (" 12 \n", "12")],
)
def test_a_reference_without_a_mark_is_the_answer_itself(reference: str, answer: str) -> None:
    assert of_reference(reference) == answer


@given(st.text())
def test_any_text_has_an_answer_or_none(text: str) -> None:
    answer = extract(text)
    assert answer is None or answer in text
    assert of_reference(text) in text or not text.strip()


ANSWERS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    st.tuples(st.integers(0, 99), st.integers(1, 99)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(lambda pair: f"({pair[0]}, {pair[1]})"),
    st.sampled_from(
        ["x > 5", "2x + 3", "p - q", "Paris", "No", "1, 2", "3 and 5", r"\sqrt{2}", r"\{1, 2\}", "A", "12 cm"]
    ),
)
WRAPPERS = st.sampled_from(
    [
        r"so \boxed{%s}.",
        r"$\fbox{%s}$",
        "Answer: %s",
        "**Answer:** %s",
        "**Answer: %s**",
        "The answer is: %s",
        "The final answer is $%s$. I hope it is correct.",
        "Final Answer: **%s**",
        "The answer is:\n\n%s",
        "So the answer is:\n\\[ %s \\]",
        "## Final Answer\n\n$%s$",
        "#### Step 1\n3 + 4 = 7\n\nThe answer is %s.\n",
        "Answer: 99\nNo, that is wrong.\nAnswer: %s",
        "<think>Answer: 99</think>The answer is %s.",
        "<think>we see that the answer is:\n%s",
    ]
)


@given(ANSWERS, WRAPPERS)
def test_an_answer_is_read_out_of_whatever_is_put_around_it(answer: str, wrapper: str) -> None:
    assert extract(wrapper.replace("%s", answer)) == answer


@pytest.mark.parametrize("text", ["<think>first 3, then 4", "<think>we have $x = 4$", "<think>\n"])
def test_a_thought_that_was_cut_off_says_nothing_unless_it_marks_it(text: str) -> None:
    assert extract(text) is None
    assert extract(text + "\nThe answer is 5") == "5"


@pytest.mark.parametrize("wrapper", ["%s", "$%s$", "Therefore $%s$ is the solution."])
@pytest.mark.parametrize("answer", ["x > 5", "(2, 5)", r"\frac{1}{2}", "10, 4, 2"])
def test_without_a_mark_the_last_formula_is_the_answer(answer: str, wrapper: str) -> None:
    assert (extract(wrapper.replace("%s", answer)) or "").strip("$") == answer


NUMBERS = st.sampled_from([1, 2, 7, 12, 365, 1_000, 12_345, 1_234_567])
WRITTEN = st.sampled_from(["{}", "{:,}", "${}", "{}%", "-{}", "**{}**", "${}$", "{}.5", "{}½", "1/{}", "{}e3"])
SENTENCES = st.sampled_from(
    [
        "It is %s.",
        "So he has %s apples left.",
        "In total: %s",
        "3 + 4 = %s",
        "* 5\n* %s",
        "That makes %s, not bad.",
        "It is %s!",
    ]
)
CHANGED = st.sampled_from(
    [
        "It is minus %s.", "at least %s hours", "He has %s thirds", "It takes %s+ hours", "half of %s apples",
        "It is 5-%s", "%s - 3", "3 * %s", "so 2**%s", "it is not %s", "more than %s people", "%s and a half hours",
        "5 + %s", "%s squared",
    ]
)  # fmt: skip


@given(NUMBERS, WRITTEN, SENTENCES)
def test_the_last_number_is_read_in_full_whatever_stands_around_it(number: int, writing: str, sentence: str) -> None:
    written = writing.format(number)
    found = number_of(extract(sentence % written) or "")
    wanted = number_of(written.strip("*"))
    assert found is not None
    assert wanted is not None
    assert found.value == wanted.value


@given(NUMBERS, CHANGED)
def test_a_number_that_what_stands_beside_it_changes_is_never_read_alone(number: int, sentence: str) -> None:
    found = number_of(extract(sentence % number) or "")
    assert found is None or found.value != number
