"""Answers that are exactly the same number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.state import Verdict
from ponder.domain.verifier import Number
from ponder_worker.verify.verifiers.number import examine


def verdict(answer: str, reference: str) -> Verdict:
    return examine(answer, Number(), reference).verdict


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from(["[[%s]]", "[%s]", "(%s)", "%s)", "[ %s ]"]))
def test_brackets_around_a_number_do_not_count(one: int, other: int, around: str) -> None:
    assert (verdict(around % one, str(other)) is Verdict.PASSED) == (one == other)


@pytest.mark.parametrize("answer", ["(1,2)", "(5) + (6)", "sqrt(16)", "f(5)", "(5)x", "[5-7]"])
def test_brackets_of_a_tuple_or_a_formula_leave_no_number(answer: str) -> None:
    assert verdict(answer, "5") is Verdict.FAILED
    assert verdict(answer, "1.2") is Verdict.FAILED
    assert verdict(answer, "16") is Verdict.FAILED
