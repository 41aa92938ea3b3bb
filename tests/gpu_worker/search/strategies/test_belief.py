"""The belief in an answer, without a reference."""

from __future__ import annotations

import math
from random import Random

import pytest

from ponder_worker.search.expansion.scores import probability
from ponder_worker.search.strategies.allocation.evidence import Believed, belief, bucket_of, expected, ranked
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

NODE = Node(0, None, 0, 0, 0, 0)


def _believed(text: str, answer: str | None, value: float | None, *, is_complete: bool = True) -> Believed:
    return Believed(Candidate(NODE, text, answer, is_complete), value)


def test_the_score_of_an_answer_is_what_is_believed_of_it() -> None:
    candidates = [_believed("a", "1", 0.7), _believed("b", "2", 0.2)]
    assert belief(candidates, "1") == pytest.approx(0.7)
    assert belief(candidates, "2") == pytest.approx(0.2)
    assert belief(candidates, "3") == 0.0


def test_different_texts_that_agree_support_each_other_and_a_copy_supports_nothing() -> None:
    alone = [_believed("a", "1.0", 0.5)]
    assert belief([*alone, _believed("b", "1", 0.5)], "1") == pytest.approx(0.75)
    assert belief([*alone, *alone], "1") == pytest.approx(0.5)


def test_without_scores_it_goes_by_the_votes() -> None:
    votes = [_believed(str(number), "1", None) for number in range(4)]
    assert belief(votes[:1], "1") == pytest.approx(2 / 3)
    assert belief(votes, "1") == pytest.approx(5 / 6)
    assert belief([*votes, _believed("x", "2", None)], "1") == pytest.approx(5 / 7)


def test_what_was_cut_off_says_nothing_believable() -> None:
    assert belief([_believed("a", "1", 0.9, is_complete=False)], "1") != pytest.approx(0.9)
    assert belief([_believed("a", None, 0.9)], None) == 0.0


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 3.0, None])
def test_whatever_a_reward_model_says_it_is_a_probability(score: float | None) -> None:
    assert 0.0 <= probability(score) <= 1.0


def test_a_score_that_is_no_number_is_no_evidence() -> None:
    assert belief([_believed("a", "1", 0.5), _believed("b", "1", probability(math.nan))], "1") == pytest.approx(0.5)


def test_the_most_believable_answer_comes_first_and_with_it_its_most_probable_text() -> None:
    found = [
        _believed("a", "1", 0.6),
        _believed("b", "2", 0.4),
        _believed("c", "2", 0.5),
        _believed("d", "2", None, is_complete=False),
    ]
    assert [one.candidate.text for one in ranked(found)] == ["c", "b", "a", "d"]


def _leaf(*logprobs: float) -> Node:
    node = Node(1, NODE, 0, 0, 0, 0)
    node.ids, node.logprob = [1] * len(logprobs), sum(logprobs)
    return node


def test_texts_of_which_the_model_was_about_as_sure_are_in_one_bucket_whatever_their_length() -> None:
    assert bucket_of(_leaf(-0.1, -0.3)) == bucket_of(_leaf(*[-0.2] * 50))
    assert bucket_of(_leaf(-0.1)) != bucket_of(_leaf(-0.2))
    assert bucket_of(_leaf(0.0)) == bucket_of(_leaf()) == bucket_of(_leaf(-1e-9))


@pytest.mark.parametrize("share", [0.99, 0.7, 0.05])
def test_what_a_text_is_expected_to_score_is_what_others_like_it_did_and_a_few_are_scored_anyway(share: float) -> None:
    random, known = Random(1), {"sure.-8.right": 100 * share, "sure.-8.num": 100.0}
    found = [expected(known, -8, random) for _ in range(400)]
    assert 0 < found.count(None) < 40
    assert all(one == pytest.approx(share, abs=0.03) for one in found if one is not None)


def test_before_anything_is_known_it_is_even_odds() -> None:
    assert expected({}, -8, Random(0)) == 0.5


def test_a_few_lucky_texts_do_not_make_their_bucket_sure_against_its_neighbours() -> None:
    known = {"sure.-8.right": 4.0, "sure.-8.num": 4.0, "sure.-9.right": 40.0, "sure.-9.num": 60.0}
    assert (expected(known, -8, Random(0)) or 1.0) < 0.7
