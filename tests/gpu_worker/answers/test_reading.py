"""The letters, programs and whole texts that verifiers read."""

from __future__ import annotations

import pytest

from ponder_worker.answers.reading import letter, program, spoken, unfenced


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: C", "C"),
        ("The answer is (B).", "B"),
        ("The correct answer is **D**.", "D"),
        ("the answer is option b", "B"),
        (r"so \boxed{A}", "A"),
        (r"so \boxed{\text{E}}", "E"),
        (r"\boxed{(F)}", "F"),
        ("#### C", "C"),
        ("C", "C"),
        ("c)", "C"),
        ("(C) because A is wrong", "C"),
        ("A is wrong and B too, so I choose D.", "D"),
        ("I think it is C", "C"),
        ("<think>Answer: A</think>Answer: B", "B"),
        ("The answer is a multiple of 3, hence (C).", "C"),
        ("The answer is a bit unclear, but I choose B.", "B"),
        ("The answer is a prime, so choice C", "C"),
        ("Answer: I am unsure, maybe B", "B"),
        ("Final answer: I believe it is (B)", "B"),
        ("Final answer: not (A), and P(D) is small, so (b), I think", "B"),
        ("Answer: A because 2 is even", "A"),
        ("Answer: A - Paris", "A"),
        ("Answer: C (and not (B))", "C"),
        ("Answer: **a**", "A"),
        ("Answer: I. Paris", "I"),
        ("Answer: Apples are red", None),
        ("A dog and a cat", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_letter_is_where_the_answer_is_marked_else_the_last_that_stands_alone(
    text: str, expected: str | None
) -> None:
    assert letter(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First:\n```python\nx = 1\n```\nbetter:\n```py\nx = 2\ny = 3\n```\nDone.", "x = 2\ny = 3"),
        ("```\nx = 1\n```", "x = 1"),
        ("x = 1", "x = 1"),
        ("```python\nx = 1", "x = 1"),
        ("<think>```python\nx = 0\n```</think>x = 1", "x = 1"),
        ("  ", None),
    ],
)
def test_the_program_is_the_last_block_of_python_or_the_text_as_a_whole(text: str, expected: str | None) -> None:
    assert program(text) == expected


def test_what_was_said_is_what_stands_after_the_thought() -> None:
    assert spoken("<think>no</think>\n yes ") == "yes"
    assert spoken("yes") == "yes"


def test_a_whole_text_is_taken_out_of_its_code_fence() -> None:
    assert unfenced('```json\n{"a": 1}\n```') == '{"a": 1}'
    assert unfenced(' {"a": 1} ') == '{"a": 1}'


def test_a_thought_that_was_cut_off_is_neither_speech_nor_a_program() -> None:
    text = "<think>```python\nx = 1\n```"
    assert (spoken(text), unfenced(text), program(text)) == ("", "", None)
