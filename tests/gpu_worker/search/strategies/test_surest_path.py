"""A path in which unsure steps are tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.strategies import STRATEGIES
from ponder_worker.search.strategies.allocation.evidence import surprisal
from ponder_worker.search.strategies.allocation.surest_path import surest_path
from ponder_worker.search.tree.node import NodeState

from ..conftest import Attempt, attempt, run

LONG = SearchLimits(None, None, 60)
Play = Callable[..., Attempt]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Play:
    def play(job_seed: int, limit: float, limits: SearchLimits = LONG) -> Attempt:
        one = attempt(limits, rng=random.Random(job_seed), job_seed=job_seed)
        path = replace(STRATEGIES["direct"], play=lambda search, spec: surest_path(search, separator="\n", limit=limit))
        monkeypatch.setitem(STRATEGIES, "direct", path)
        run(one, {"name": "direct"})
        return one

    return play


def test_an_unsure_step_is_tried_again_and_the_likeliest_try_is_kept(played: Play) -> None:
    num_sure = num_unsure = 0
    for job_seed in range(10):
        one = played(job_seed, 0.35)
        (candidate,) = one.ranked or ()
        for step in candidate.node.path():
            tries = [node for node in one.search.tree.nodes[1:] if node.parent is step.parent]
            is_sure = surprisal([min(tries, key=lambda node: node.ordinal)]) <= 0.35
            assert len(tries) == (1 if is_sure else 4)
            assert step is max(tries, key=lambda node: node.logprob)
            assert all(node.state is not NodeState.FINISHED for node in tries if node is not step)
            num_sure += is_sure
            num_unsure += not is_sure
    assert min(num_sure, num_unsure) > 5


def test_a_sure_path_is_an_ordinary_sample_and_asks_no_reward_model(played: Play) -> None:
    one = played(3, 100.0)
    assert one.search.tree.num_tokens == sum(len(step.ids) for step in (one.ranked or ())[0].node.path())
    assert one.engine.num_scores == 0


def test_the_budget_is_a_wall(played: Play) -> None:
    for job_seed in range(10):
        one = played(job_seed, 0.0, SearchLimits(50, None, 40))
        assert one.search.tree.num_tokens <= 50
        assert one.ranked
