"""Adaptive: easy jobs end with their probe, the rest get what others of the batch have learnt from."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.allocation.bandit import balance, difficulty, lesson
from ponder_worker.search.tree.search_tree import SearchTree

from ..conftest import PROMPT, Attempt, StubEngine, run

UNLIMITED = SearchLimits(None, None, 40)
SPEC = {"name": "adaptive", "n": 16}


ARMS = ("samples", "steps", "particles")


def _learned(better: str, *, num_jobs: int = 500) -> dict[str, float]:
    """One arm has always helped in every bucket, and the others never. No text was ever believed."""
    known = balance(0.5 * num_jobs, 100 * num_jobs)
    for num_waves in range(4):
        for belief in (0.0, 0.1, 0.5):
            for arm in ARMS:
                gain = 0.5 * num_jobs if arm == better else 0.0
                known |= lesson(difficulty(num_waves, belief), arm, gain, 100 * num_jobs)
    for bucket in range(-20, 10):
        known |= {f"sure.{bucket}.right": 0.0, f"sure.{bucket}.num": float(num_jobs)}
    return known


def _attempt(
    learned: dict[str, float], *, job_seed: int = 5, deltas: Any = None, clock: int = 0, can_score: bool = True
) -> Attempt:
    tree = SearchTree.fold(job_seed, deltas) if deltas else SearchTree(job_seed, PROMPT)
    engine = StubEngine(random.Random(clock))
    engine.can_score = can_score
    return Attempt(Search(tree, engine, UNLIMITED, learned=lambda: learned), engine, list(deltas or ()))


def _arms(one: Attempt) -> list[str]:
    return [arm for name, arm in one.search.tree.decisions.items() if name.startswith("after")]


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


def test_a_probe_that_is_as_sure_as_those_that_were_right_is_not_even_scored() -> None:
    known = {f"sure.{bucket}.{what}": 500.0 for bucket in range(-20, 10) for what in ("right", "num")}
    num_ended = 0
    for job_seed in range(30):
        (probe,) = run(_attempt(known, job_seed=job_seed), SPEC | {"n": 1}) or ()
        one = _attempt(known, job_seed=job_seed)
        run(one, SPEC)
        if probe.is_complete and probe.answer is not None and not one.engine.num_scores:
            assert _arms(one) == []
            assert len(one.search.tree.nodes) == 2
            num_ended += 1
    assert num_ended > 10


@pytest.mark.parametrize(("share", "is_scored"), [(0.3, False), (0.7, True)])
def test_a_probe_is_scored_where_the_score_may_save_a_wave(share: float, is_scored: bool) -> None:
    known = {f"sure.{bucket}.num": 500.0 for bucket in range(-20, 10)}
    known |= {f"sure.{bucket}.right": 500 * share for bucket in range(-20, 10)}
    num_probes = num_scored = 0
    for job_seed in range(30):
        one = _attempt(known, job_seed=job_seed)
        (probe,) = run(one, SPEC | {"n": 1}) or ()
        num_probes += probe.is_complete and bool(probe.text)
        num_scored += one.engine.num_scores
    assert num_scored == num_probes if is_scored else num_scored < num_probes / 3


@pytest.mark.parametrize("better", ARMS)
def test_what_has_helped_other_jobs_of_the_batch_is_what_a_hard_job_gets(better: str) -> None:
    arms = []
    for job_seed in range(20):
        one = _attempt(_learned(better), job_seed=job_seed)
        run(one, SPEC | {"n": 6})
        arms += [arm for arm in _arms(one) if arm]
    assert arms.count(better) > 0.8 * len(arms) > 8


def test_where_nothing_has_helped_little_is_spent() -> None:
    tokens = {"nothing": 0, "samples": 0}
    for name in tokens:
        for job_seed in range(15):
            one = _attempt(_learned(name), job_seed=job_seed)
            run(one, SPEC | {"worth": 2.0})
            tokens[name] += one.search.tree.num_tokens
    assert tokens["nothing"] < tokens["samples"] / 3


def test_killed_anywhere_and_gone_on_with_by_a_worker_that_knows_more_it_does_and_teaches_the_same() -> None:
    whole = _attempt(_learned("steps"))
    num_steps = 0

    def count(number: int) -> bool:
        nonlocal num_steps
        num_steps = number
        return True

    run(whole, SPEC | {"n": 5}, after_step=count)
    assert len(_arms(whole)) > 1
    for killed_at in range(1, num_steps, 4):
        first = _attempt(_learned("steps"))
        run(first, SPEC | {"n": 5}, after_step=lambda number, stop=killed_at: number < stop)
        first.save()
        decided = len(_arms(first))
        second = _attempt(_learned("samples"), deltas=json.loads(json.dumps(first.deltas)), clock=killed_at)
        run(second, SPEC | {"n": 5})
        assert _arms(second)[:decided] == _arms(whole)[:decided]
        if decided == len(_arms(whole)):
            assert second.search.tree.num_tokens == whole.search.tree.num_tokens
            assert second.search.lessons == pytest.approx(whole.search.lessons)


def test_it_teaches_sums_of_numbers_and_nothing_of_the_prompt() -> None:
    one = _attempt({})
    run(one, SPEC)
    lessons = one.search.lessons
    scored = sum(len(node.ids) for node in one.search.tree.nodes[1:] if node.score is not None)
    assert lessons["spent"] == one.search.tree.num_tokens + scored
    assert 0.0 <= lessons["solved"] <= 1.0
    spent = sum(number for name, number in lessons.items() if name.endswith(".tokens"))
    assert 0 < spent < lessons["spent"], "all but the probe"
    for name in lessons.keys() - {"solved", "spent"}:
        if name.startswith("sure"):
            assert re.fullmatch(r"sure\.-?\d+\.(right|num)", name)
        else:
            assert re.fullmatch(r"[0123]\.[012]\.(samples|steps|particles)\.(gain|tokens)", name)


def test_without_a_reward_model_it_goes_by_agreement() -> None:
    one = _attempt({}, can_score=False)
    ranked = run(one, SPEC)
    assert ranked
    assert one.engine.num_scores == 0
    assert set(_arms(one)) <= {"samples", "steps"}


def test_it_never_makes_more_than_n_paths() -> None:
    for job_seed in range(8):
        one = _attempt({}, job_seed=job_seed)
        assert len(run(one, SPEC | {"n": 11, "worth": 1e6}) or ()) <= 11
