"""Samples, as many as it takes."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.tree.node import NodeState

from ..conftest import Attempt, attempt, run

SHORT = SearchLimits(None, None, 12)


def settle(job_seed: int, **spec: Any) -> Attempt:
    one = attempt(SHORT, rng=random.Random(job_seed), job_seed=job_seed)
    run(one, {"name": "self_consistency", "n": 24} | spec)
    return one


def test_early_stopping_saves_tokens_and_seldom_changes_the_answer_even_where_answers_are_scattered() -> None:
    same, tokens = 0, Counter[str]()
    for job_seed in range(60):
        stopped, whole = settle(job_seed), settle(job_seed, early_stopping=None)
        assert stopped.ranked
        assert whole.ranked
        same += stopped.ranked[0].answer == whole.ranked[0].answer
        tokens["stopped"] += stopped.search.tree.num_tokens
        tokens["whole"] += whole.search.tree.num_tokens
    assert same >= 48
    assert tokens["stopped"] < tokens["whole"]


@pytest.mark.parametrize("job_seed", range(40))
def test_what_is_settled_is_cut_off_in_mid_token_and_keeps_its_tokens(job_seed: int) -> None:
    one = attempt(SHORT, rng=random.Random(job_seed), job_seed=job_seed)
    run(one, {"name": "self_consistency", "n": 6})
    cut = [node for node in one.search.tree.nodes if node.stop == "settled"]
    assert all(node.state is NodeState.CANCELLED for node in cut)
    assert one.search.expander.budget.reserved == 0
    assert one.search.expander.budget.used == one.search.tree.num_tokens == one.engine.num_generated
    assert not one.engine.streams


def test_some_are_cut_off_in_mid_token() -> None:
    trees = [settle(job_seed, n=6).search.tree for job_seed in range(40)]
    assert any(node.stop == "settled" and node.ids for tree in trees for node in tree.nodes)


def test_as_many_candidates_as_choices_are_made_however_much_they_agree() -> None:
    one = attempt(SHORT, rng=random.Random(0), num_choices=12)
    assert len(run(one, {"name": "self_consistency", "n": 24}) or ()) >= 12
