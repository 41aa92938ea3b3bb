"""Mathematically equal answers pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.state import Verdict
from ponder.domain.verifier import Math
from ponder_worker.answers.writing import plain
from ponder_worker.verify.verifiers.math import examine, reads


def verdict(answer: str, reference: str) -> Verdict:
    return examine(answer, Math(), reference).verdict


@given(st.text())
def test_an_answer_that_is_its_reference_always_passes(text: str) -> None:
    assert verdict(text, text) is Verdict.PASSED


DECIMALS = st.tuples(
    st.sampled_from(["", "0", "5", "10", "1,080", "12"]), st.sampled_from(["", ".5", ".50", ".05", ".672"])
)


@given(DECIMALS, DECIMALS, st.sampled_from(["%s", "%s cm", "(%s, 2)", "%sx", "y = %s"]))
def test_where_the_point_stands_always_counts(one: tuple[str, str], other: tuple[str, str], around: str) -> None:
    found, wanted = ("".join(number) or "0" for number in (one, other))
    if "(" in around or "x" in around:  # a comma there separates, or is read by a parser
        found, wanted = found.replace(",", ""), wanted.replace(",", "")
    is_same = float(found.replace(",", "")) == float(wanted.replace(",", ""))
    assert (verdict(around % found, around % wanted) is Verdict.PASSED) == is_same


def test_a_reference_that_contradicts_itself_is_not_read() -> None:
    assert verdict("x = 2", "x = 3 + 1 = 2") is Verdict.UNVERIFIED
    assert verdict("x = 3 + 1 = 2", "x = 2") is Verdict.PASSED


@pytest.mark.parametrize("text", ["It is always an even number", r"\frac{1}{", r"A \times B", r"n \equiv 3 \pmod 7"])
def test_what_cannot_be_read_as_a_whole_calls_no_answer_wrong(text: str) -> None:
    assert not reads(plain(text))
    assert verdict("5", text) is Verdict.UNVERIFIED
