"""Agreement among samples."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.strategies.samples import CONFIDENCE, Agreement, probability_of_majority
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node


def votes(answers: str, *, cut: str = "") -> list[Candidate]:
    """One candidate a letter; `-` has no answer, and those in `cut` were cut off."""
    return [
        Candidate(Node(place, None, place, 0, 0, 0), letter, None if letter == "-" else letter, letter not in cut)
        for place, letter in enumerate(answers)
    ]


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_probability_is_the_integral_of_the_beta_density_above_a_half(first: int, second: int) -> None:
    steps = 4000
    xs = [(k + 0.5) / steps for k in range(steps)]
    density = [x**first * (1 - x) ** second for x in xs]
    expected = sum(density[steps // 2 :]) / sum(density)
    assert probability_of_majority(first, second) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("answers", "is_settled"), [("aaa", False), ("aaaa", True), ("aaaab", False), ("abaaaaa", True), ("aabb", False)]
)
def test_four_of_a_kind_settle_it_and_a_dissenter_asks_for_more(answers: str, is_settled: bool) -> None:
    candidates = votes(answers)
    assert Agreement(candidates).is_settled("beta", candidates[0]) is is_settled


@pytest.mark.parametrize(
    ("answers", "is_settled"), [("aaaa", False), ("aaaaa", True), ("abaaa", False), ("abaaaaaaaa", True)]
)
def test_a_window_of_five_that_agree_settles_it(answers: str, is_settled: bool) -> None:
    candidates = votes(answers)
    assert Agreement(candidates).is_settled("window", candidates[0]) is is_settled


@pytest.mark.parametrize("answers", ["aaaaaab", "bbbbbba"])
def test_what_is_not_the_most_frequent_answer_is_never_settled(answers: str) -> None:
    candidates = votes(answers)
    assert not Agreement(candidates).is_settled("beta", candidates[-1])


def test_a_sample_that_was_cut_off_votes_for_nothing() -> None:
    assert Agreement(votes("aaabbbb", cut="b")).top == "a"


@given(st.text("ab-c", max_size=20))
def test_the_next_wave_is_the_fewest_that_could_settle_it(answers: str) -> None:
    agreement = Agreement(votes(answers))
    more = agreement.num_to_settle("beta")
    assert probability_of_majority(agreement.first + more, agreement.second) >= CONFIDENCE
    assert more == 1 or probability_of_majority(agreement.first + more - 1, agreement.second) < CONFIDENCE


@given(st.text("abc", min_size=1, max_size=12), st.integers(0, 6))
def test_a_lead_is_decided_exactly_if_the_rest_cannot_catch_up_with_it(answers: str, num_left: int) -> None:
    agreement = Agreement(votes(answers))
    counts = Counter(answers)
    others = [counts[letter] for letter in "abc" if letter != agreement.top]
    assert agreement.is_decided(num_left) == (counts[agreement.top or ""] > max(others) + num_left)


@pytest.mark.parametrize(("num", "more"), [(0, 5), (1, 4), (4, 1), (5, 5), (7, 3)])
def test_the_next_wave_completes_a_window(num: int, more: int) -> None:
    assert Agreement(votes("a" * num)).num_to_settle("window") == more
