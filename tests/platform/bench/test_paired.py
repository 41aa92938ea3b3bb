"""Comparing two cells job by job."""

from __future__ import annotations

import pytest
from bench_records import record

from ponder.bench.grid import CellKey
from ponder.bench.paired import difference_of
from ponder.errors import InvalidInput

A, B = (
    CellKey(
        data="d", model=model, worker=None, strategy="direct", budget_tokens=None, concurrency=None, arrivals="at once"
    )
    for model in ("base", "reasoning")
)


def test_a_difference_that_every_problem_shows_is_told_and_one_that_varies_may_be_chance() -> None:
    a = [record(f"p{n}", completion_tokens=100 + 50 * n, passed=n % 2 == 0) for n in range(20)]
    b = [record(f"p{n}", completion_tokens=110 + 50 * n, passed=n % 4 < 2) for n in range(20)]
    found = difference_of(A, a, B, b)
    tokens, accuracy = found.measure("output_tokens"), found.measure("accuracy")
    assert tokens is not None
    assert (tokens.meaning, tokens.difference.value, tokens.difference.low) == ("higher", 10.0, 10.0)
    assert accuracy is not None
    assert (accuracy.meaning, accuracy.a, accuracy.b) == ("may be chance", 0.5, 0.5)


def test_only_the_same_problem_with_the_same_seed_is_a_pair() -> None:
    a = [record("p", 0), record("p", 1), record("q", 0)]
    b = [record("p", 1), record("q", 1), record("r", 0)]
    found = difference_of(A, a, B, b)
    assert (found.num_problems, found.num_pairs) == (1, 1)
    with pytest.raises(InvalidInput, match="no problem with the same seed"):
        difference_of(A, a[:1], B, b[:1])
