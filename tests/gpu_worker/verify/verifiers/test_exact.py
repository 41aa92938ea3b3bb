"""Answers that equal the reference character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.state import Verdict
from ponder.domain.verifier import Exact
from ponder_worker.verify.verifiers.exact import examine


def verdict(answer: str, reference: str) -> Verdict:
    return examine(answer, Exact(), reference).verdict


@given(st.text())
def test_an_answer_that_is_its_reference_passes(text: str) -> None:
    assert verdict(text, text) is Verdict.PASSED


@pytest.mark.parametrize(
    "answer", ["Paris", " Paris ", "**Paris**", '"Paris"', "`Paris`", "Paris.", r"\text{Paris}", "$Paris$"]
)
def test_what_is_only_put_around_an_answer_does_not_count(answer: str) -> None:
    assert verdict(answer, "Paris") is Verdict.PASSED
    assert verdict("Paris", answer) is Verdict.PASSED


@pytest.mark.parametrize(
    ("answer", "reference"), [("args", "*args"), ("What", "What?"), ("init", "__init__"), ("__init__", "__init__")]
)
def test_signs_that_are_lost_when_an_answer_is_read_do_not_count(answer: str, reference: str) -> None:
    assert verdict(answer, reference) is Verdict.PASSED


@pytest.mark.parametrize("answer", ["paris", "Paris!", "Paris, France", "London", "", "P aris"])
def test_every_other_character_does(answer: str) -> None:
    assert verdict(answer, "Paris") is Verdict.FAILED
