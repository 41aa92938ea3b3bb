"""A sample's confidence, and where it is too low."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.expansion.confidence import ConfidenceRule, ConfidenceWatch

LOGPROBS = st.lists(st.floats(-20, 0), max_size=30)


def _confidence(logprobs: list[float], window: int) -> float:
    groups = [logprobs[start : start + window] for start in range(max(1, len(logprobs) - window + 1))]
    return min(math.exp(sum(group) / len(group)) for group in groups)


@given(LOGPROBS.filter(bool), st.integers(1, 8))
def test_it_is_the_lowest_geometric_mean_of_any_window(logprobs: list[float], window: int) -> None:
    watch = ConfidenceWatch(ConfidenceRule(window))
    assert not watch.is_low(logprobs)
    assert watch.confidence == pytest.approx(_confidence(logprobs, window))


def test_a_sample_without_a_token_has_none() -> None:
    assert ConfidenceWatch(ConfidenceRule(2)).confidence is None


@given(LOGPROBS, st.integers(1, 8), st.floats(0, 1), st.lists(st.integers(0, 30)))
def test_it_is_too_low_at_the_same_token_however_the_tokens_come(
    logprobs: list[float], window: int, floor: float, cuts: list[int]
) -> None:
    whole, parts = (ConfidenceWatch(ConfidenceRule(window, floor)) for _ in range(2))
    is_low = whole.is_low(logprobs)
    places = sorted({0, len(logprobs), *(min(cut, len(logprobs)) for cut in cuts)})
    assert any(parts.is_low(logprobs[start:end]) for start, end in pairwise(places)) == is_low
    assert (parts.num_seen, parts.confidence) == (whole.num_seen, whole.confidence)


@given(LOGPROBS, st.integers(1, 8), st.floats(0.01, 1))
def test_it_is_too_low_with_the_first_whole_window_below_the_floor(
    logprobs: list[float], window: int, floor: float
) -> None:
    watch = ConfidenceWatch(ConfidenceRule(window, floor))
    if watch.is_low(logprobs):
        assert watch.num_seen >= window
        assert _confidence(logprobs[: watch.num_seen], window) < floor + 1e-9
        assert watch.num_seen == window or _confidence(logprobs[: watch.num_seen - 1], window) >= floor - 1e-9
    else:
        assert len(logprobs) < window or _confidence(logprobs, window) >= floor - 1e-9
