"""Equal character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.state import Verdict
from ponder_worker.verify.verifiers.exact import examine


@given(st.text())
def test_an_answer_that_is_its_reference_passes(text: str) -> None:
    assert examine(text, text).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "answer", ["Paris", " Paris ", "**Paris**", '"Paris"', "`Paris`", "Paris.", r"\text{Paris}", "$Paris$"]
)
def test_what_is_only_put_around_an_answer_does_not_count(answer: str) -> None:
    assert examine(answer, "Paris").verdict is Verdict.PASSED
    assert examine("Paris", answer).verdict is Verdict.PASSED


@pytest.mark.parametrize("answer", ["paris", "Paris!", "Paris, France", "London", "", "P aris"])
def test_every_other_character_does(answer: str) -> None:
    assert examine(answer, "Paris").verdict is Verdict.FAILED
