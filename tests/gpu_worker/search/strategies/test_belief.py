"""The belief in an answer, without a reference."""

from __future__ import annotations

import math

import pytest

from ponder_worker.search.strategies.adaptive import belief
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

NODE = Node(0, None, 0, 0, 0, 0)


def _candidate(text: str, answer: str | None, probability: float | None, *, is_complete: bool = True) -> Candidate:
    score = None if probability is None else math.log(probability) if probability else -math.inf
    return Candidate(NODE, text, answer, is_complete, score)


def test_the_score_of_an_answer_is_what_is_believed_of_it() -> None:
    candidates = [_candidate("a", "1", 0.7), _candidate("b", "2", 0.2)]
    assert belief(candidates, "1") == pytest.approx(0.7)
    assert belief(candidates, "2") == pytest.approx(0.2)
    assert belief(candidates, "3") == 0.0


def test_different_texts_that_agree_support_each_other_and_a_copy_supports_nothing() -> None:
    alone = [_candidate("a", "1.0", 0.5)]
    assert belief([*alone, _candidate("b", "1", 0.5)], "1") == pytest.approx(0.75)
    assert belief([*alone, *alone], "1") == pytest.approx(0.5)


def test_without_scores_it_goes_by_the_votes() -> None:
    votes = [_candidate(str(number), "1", None) for number in range(4)]
    assert belief(votes[:1], "1") == pytest.approx(2 / 3)
    assert belief(votes, "1") == pytest.approx(5 / 6)
    assert belief([*votes, _candidate("x", "2", None)], "1") == pytest.approx(5 / 7)


def test_what_was_cut_off_says_nothing_believable() -> None:
    assert belief([_candidate("a", "1", 0.9, is_complete=False)], "1") != pytest.approx(0.9)
    assert belief([_candidate("a", None, 0.9)], None) == 0.0


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 3.0])
def test_whatever_a_reward_model_says_it_is_a_probability(score: float) -> None:
    assert 0.0 <= belief([Candidate(NODE, "a", "1", True, score)], "1") <= 1.0


def test_a_score_that_is_no_number_is_no_evidence() -> None:
    unknown = Candidate(NODE, "b", "1", True, math.nan)
    assert belief([_candidate("a", "1", 0.5), unknown], "1") == pytest.approx(0.5)
