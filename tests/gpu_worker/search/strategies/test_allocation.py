"""The allocation of a batch's next tokens."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.strategies.allocation.bandit import Arm, balance, choose, difficulty, lesson

ARMS = [Arm("samples", 1, 100.0, 0.25), Arm("steps", 1, 100.0, 0.25)]
BUCKET = difficulty(2, 0.1)


def _sums(*lessons: dict[str, float]) -> dict[str, float]:
    known: Counter[str] = Counter()
    for one in lessons:
        known.update(one)  # type: ignore[arg-type]
    return dict(known)


def _choices(known: dict[str, float], *, num: int = 400, worth: float = 30.0) -> Counter[str | None]:
    random = Random(1)
    return Counter(choose(known, BUCKET, ARMS, belief=0.1, worth=worth, random=random) for _ in range(num))


def _after(num_jobs: int, **gains: float) -> dict[str, float]:
    """Sums after so many jobs, each of which tried every arm for a hundred tokens and ended half solved."""
    job = [*(lesson(BUCKET, arm, gain, 100) for arm, gain in gains.items()), balance(0.5, 200)]
    return _sums(*job * num_jobs)


def test_without_any_lesson_every_arm_is_tried_and_nobody_is_given_up() -> None:
    chosen = _choices({})
    assert chosen[None] == 0
    assert min(chosen["samples"], chosen["steps"]) > 100


@pytest.mark.parametrize("better", ["samples", "steps"])
def test_a_better_arm_is_chosen_more_and_more_often(better: str) -> None:
    gains = {"samples": 0.05, "steps": 0.05} | {better: 0.2}
    often = [_choices(_after(num, **gains))[better] for num in (0, 20, 100)]
    assert often == sorted(often)
    assert often[-1] > 350


def test_the_worse_arm_is_still_tried_after_a_thousand_jobs() -> None:
    chosen = _choices(_after(1000, samples=0.3, steps=0.0), num=1000)
    assert chosen["samples"] > 950
    assert chosen["steps"] > 0


def test_what_is_not_worth_its_tokens_is_left_and_still_tried_now_and_then() -> None:
    chosen = _choices(_after(1000, samples=0.001, steps=0.001), num=1000)
    assert chosen[None] > 900
    assert chosen["samples"] + chosen["steps"] > 0


def test_whoever_pays_more_for_a_solved_task_goes_on_longer() -> None:
    known = _after(300, samples=0.01, steps=0.01)
    given_up = [_choices(known, worth=worth)[None] for worth in (1, 30, 1000)]
    assert given_up == sorted(given_up, reverse=True)
    assert given_up[0] > 350
    assert given_up[-1] < 10


@given(st.integers(1, 64), st.floats(0, 1), st.floats(0, 0.79), st.integers(0, 10**6), st.integers(0, 2**32))
def test_whatever_was_learnt_one_of_the_arms_or_none_is_chosen_and_the_same_by_the_same_seed(
    num_paths: int, gain: float, belief: float, tokens: int, seed: int
) -> None:
    bucket = difficulty(num_paths, belief)
    known = _sums(lesson(bucket, "steps", gain, tokens), balance(gain, tokens))
    first, again = (choose(known, bucket, ARMS, belief=belief, worth=30.0, random=Random(seed)) for _ in range(2))
    assert first == again
    assert first in ("samples", "steps", None)


@given(st.floats(0, 1e6), st.floats(0, 0.79), st.floats(0, 1e9), st.integers(0, 2**32))
def test_whatever_was_seen_an_arm_or_none_is_chosen(tokens: float, belief: float, spent: float, seed: int) -> None:
    """Also after a probe that a deadline cut before its first token."""
    arms = [Arm("samples", 1, tokens, 0.25), Arm("steps", 1, tokens, 0.25)]
    known = _sums(lesson(BUCKET, "steps", 0.0, 0), {"solved": 0.0, "spent": spent})
    assert choose(known, BUCKET, arms, belief=belief, worth=30.0, random=Random(seed)) in ("samples", "steps", None)
