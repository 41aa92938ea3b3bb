"""Adaptive branching: a new answer, or a better one of an earlier answer."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.strategies.ab_mcts import Answer
from ponder_worker.search.tree.node import Node

from ..conftest import Attempt, attempt, run

SPEC = {"name": "ab_mcts", "n": 8, "refine": "No."}
UNLIMITED = SearchLimits(None, None, 400)


def _played(job_seed: int, limits: SearchLimits = UNLIMITED) -> Attempt:
    one = attempt(limits, rng=random.Random(job_seed), job_seed=job_seed)
    run(one, SPEC)
    return one


def _answer(value: float, *children: Answer, may_generate: bool = True) -> Answer:
    return Answer(Node(0, None, 0, 0, 0, 0), value=value, may_generate=may_generate, children=list(children))


def test_it_makes_n_answers_some_new_and_some_refined() -> None:
    depths = Counter[int]()
    for job_seed in range(20):
        one = _played(job_seed)
        assert len(one.ranked or ()) == 8
        depths.update(sum(step.stop != "forced" for step in answer.node.path()) for answer in one.ranked or ())
    assert depths[1] > 20
    assert sum(depths.values()) - depths[1] > 20


def test_refinements_of_one_answer_share_the_turn_that_asks_for_them() -> None:
    trees = [_played(job_seed).search.tree for job_seed in range(20)]
    turns = [node for tree in trees for node in tree.nodes[1:] if node.stop == "forced"]
    assert turns
    assert len(turns) == len({id(node.parent) for node in turns})


def test_an_answer_is_scored_for_itself_and_the_best_one_wins() -> None:
    for job_seed in range(10):
        ranked = _played(job_seed).ranked or ()
        whole = [answer for answer in ranked if answer.is_complete]
        assert all(answer.score == answer.node.score for answer in whole if answer.text)
        scores = [answer.score for answer in whole if answer.score is not None]
        assert scores == sorted(scores, reverse=True)


def test_where_no_further_turn_has_room_it_makes_new_answers_and_where_nothing_has_it_ends() -> None:
    for job_seed in range(20):
        one = _played(job_seed, SearchLimits(90, None, 60))
        assert one.search.tree.num_tokens <= 90
        assert one.ranked


@pytest.mark.parametrize(
    ("values", "refined", "is_wider"), [((0.9,) * 20, (0.1,) * 20, True), ((0.1,) * 20, (0.9,) * 20, False)]
)
def test_it_goes_wider_or_deeper_as_the_values_say(
    values: tuple[float, ...], refined: tuple[float, ...], is_wider: bool
) -> None:
    children = [_answer(value, _answer(better)) for value, better in zip(values, refined, strict=True)]
    root = _answer(0.0, *children)
    num_wider = sum(root.chosen(random.Random(seed)) is root for seed in range(100))
    assert (num_wider > 95) is is_wider
    assert num_wider > 95 or num_wider < 5


def test_it_goes_deeper_below_the_better_answer_and_never_where_nothing_is_open() -> None:
    good, bad = _answer(0.9, *[_answer(0.9) for _ in range(10)]), _answer(0.1, *[_answer(0.1) for _ in range(10)])
    root = _answer(0.0, good, bad, _answer(0.99, may_generate=False), may_generate=False)
    chosen = Counter(
        "good" if place is good or place in good.children else "bad" if place is bad or place in bad.children else "?"
        for place in (root.chosen(random.Random(seed)) for seed in range(100))
    )
    assert chosen["good"] > 95
    assert not chosen["?"]
