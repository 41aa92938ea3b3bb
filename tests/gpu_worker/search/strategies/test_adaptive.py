"""Adaptive: easy jobs end with their probe, the rest get what others of the batch have learnt from."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.adaptive import balance, difficulty, lesson
from ponder_worker.search.tree.search_tree import SearchTree

from ..conftest import PROMPT, Attempt, StubEngine, run

UNLIMITED = SearchLimits(None, None, 40)
SPEC = {"name": "adaptive", "n": 16}


def _learned(better: str, *, num_jobs: int = 500) -> dict[str, float]:
    """One arm has always helped in every bucket, and the other never; a second sample has always helped."""
    known = balance(0.5 * num_jobs, 100 * num_jobs)
    for num_paths in (1, 2, 4, 8):
        for belief in (0.0, 0.1, 0.5):
            for arm in ("samples", "beam"):
                gain = 0.5 * num_jobs if arm == better or num_paths == 1 else 0.0
                known |= lesson(difficulty(num_paths, belief), arm, gain, 100 * num_jobs)
    return known


def _attempt(
    learned: dict[str, float], *, job_seed: int = 5, deltas: Any = None, clock: int = 0, can_score: bool = True
) -> Attempt:
    tree = SearchTree.fold(job_seed, deltas) if deltas else SearchTree(job_seed, PROMPT)
    engine = StubEngine(random.Random(clock))
    engine.can_score = can_score
    return Attempt(Search(tree, engine, UNLIMITED, learned=lambda: learned), engine, list(deltas or ()))


def _arms(one: Attempt) -> list[str]:
    return list(one.search.tree.decisions.values())


def test_a_job_whose_probe_is_sure_ends_with_it() -> None:
    for job_seed in range(1000):
        probe = run(_attempt({}, job_seed=job_seed), SPEC | {"n": 1})
        if probe and probe[0].answer is not None and (probe[0].score or -9.0) > -0.2:
            one = _attempt({}, job_seed=job_seed)
            run(one, SPEC)
            assert _arms(one) == []
            assert len(one.search.tree.nodes) == 2
            return
    pytest.fail("no probe of any seed was sure")


@pytest.mark.parametrize("better", ["samples", "beam"])
def test_what_has_helped_other_jobs_of_the_batch_is_what_a_hard_job_gets(better: str) -> None:
    arms = []
    for job_seed in range(40):
        one = _attempt(_learned(better), job_seed=job_seed)
        run(one, SPEC)
        arms += _arms(one)[1:]  # a wave of one path is a sample
    assert arms.count(better) > 0.9 * len(arms)


def test_where_nothing_has_helped_little_is_spent() -> None:
    tokens = {"nothing": 0, "samples": 0}
    for name in tokens:
        for job_seed in range(30):
            one = _attempt(_learned(name), job_seed=job_seed)
            run(one, SPEC | {"worth": 2.0})
            tokens[name] += one.search.tree.num_tokens
    assert tokens["nothing"] < tokens["samples"] / 3


def test_killed_anywhere_and_gone_on_with_by_a_worker_that_knows_more_it_does_and_teaches_the_same() -> None:
    whole = _attempt(_learned("beam"))
    num_steps = 0

    def count(number: int) -> bool:
        nonlocal num_steps
        num_steps = number
        return True

    run(whole, SPEC, after_step=count)
    assert len(_arms(whole)) > 2
    for killed_at in range(1, num_steps):
        first = _attempt(_learned("beam"))
        run(first, SPEC, after_step=lambda number, stop=killed_at: number < stop)
        first.save()
        decided = len(_arms(first))
        second = _attempt(_learned("samples"), deltas=json.loads(json.dumps(first.deltas)), clock=killed_at)
        run(second, SPEC)
        assert _arms(second)[:decided] == _arms(whole)[:decided]
        if decided == len(_arms(whole)):
            assert second.search.tree.num_tokens == whole.search.tree.num_tokens
            assert second.search.lessons == pytest.approx(whole.search.lessons)


def test_it_teaches_sums_of_numbers_and_nothing_of_the_prompt() -> None:
    one = _attempt({})
    run(one, SPEC)
    lessons = one.search.lessons
    assert lessons["spent"] == one.search.tree.num_tokens
    assert 0.0 <= lessons["solved"] <= 1.0
    spent = sum(number for name, number in lessons.items() if name.endswith(".tokens"))
    assert 0 < spent < lessons["spent"], "all but the probe"
    for name in lessons.keys() - {"solved", "spent"}:
        num_paths, bucket, arm, what = name.split(".")
        assert int(num_paths) in (1, 2, 4, 8)
        assert bucket in "012"
        assert arm in ("samples", "beam")
        assert what in ("gain", "tokens")


def test_without_a_reward_model_it_goes_by_agreement() -> None:
    one = _attempt({}, can_score=False)
    ranked = run(one, SPEC)
    assert ranked
    assert one.engine.num_scores == 0
    assert set(_arms(one)) == {"samples"}


def test_it_never_makes_more_than_n_paths() -> None:
    for job_seed in range(20):
        one = _attempt({}, job_seed=job_seed)
        run(one, SPEC | {"n": 11, "worth": 1e6})
        assert one.search.expander.num_requested(one.search.root) <= 11
