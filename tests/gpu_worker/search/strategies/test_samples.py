"""Samples, as many as it takes."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ponder.domain.strategy import STRATEGY
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


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_the_shortest_samples_that_end_are_those_that_vote(job_seed: int, num: int) -> None:
    whole, first = settle(job_seed, n=7, early_stopping=None), settle(job_seed, n=7, shortest=num, early_stopping=None)
    ended = [node for node in whole.search.tree.nodes[1:] if node.stop == "stop"]
    ended.sort(key=lambda node: (len(node.ids), node.ordinal))
    chosen = [candidate.node.address for candidate in first.ranked or () if candidate.is_complete]
    assert sorted(chosen) == sorted(node.address for node in ended[:num])
    if len(ended) > num:
        assert first.search.tree.num_tokens <= whole.search.tree.num_tokens


CONFIDENCE = {"keep": 0.5, "window": 3, "num_warmup": 4}


def test_a_sample_less_confident_than_the_warmup_is_stopped_in_mid_text_and_has_no_vote() -> None:
    num_stopped = 0
    for job_seed in range(20):
        one = settle(job_seed, early_stopping=None, confidence=CONFIDENCE)
        assert one.ranked
        nodes = one.search.tree.nodes[1:]
        assert all(node.confidence is not None for node in nodes)
        warmup = sorted((node.confidence or 0.0 for node in nodes[:4] if node.stop == "stop"), reverse=True)
        floor = warmup[math.ceil(len(warmup) / 2) - 1] if warmup else 0.0
        stopped = [node for node in nodes if node.stop == "confidence"]
        num_stopped += len(stopped)
        assert not any(node.stop == "confidence" for node in nodes[:4]), "the warm-up is whole"
        assert all((node.confidence or 0.0) < floor for node in stopped)
        assert all(node.state is NodeState.CANCELLED and node.score is None for node in stopped)
        groups = [node.logprobs[place : place + 3] for node in nodes[4:] for place in range(len(node.ids) - 3)]
        assert all(math.exp(sum(group) / 3) >= floor - 1e-9 for group in groups), "it is stopped at once"
        assert len(one.ranked) == 24
        assert one.search.expander.budget.used == one.search.tree.num_tokens == one.engine.num_generated
        assert one.search.expander.budget.reserved == 0
    assert num_stopped > 20


def test_votes_are_weighted_by_confidence_and_only_the_most_confident_share_has_one() -> None:
    one = settle(0, early_stopping=None, confidence={"keep": 0.5, "window": 3, "num_warmup": 24})
    assert one.ranked
    whole = sorted((c for c in one.ranked if c.is_complete), key=lambda c: -(c.confidence or 0.0))
    kept = whole[: math.ceil(len(whole) / 2)]
    weights = Counter[str | None]()
    for candidate in kept:
        weights[candidate.answer] += candidate.confidence or 0.0  # type: ignore[assignment]
    del weights[None]
    assert one.ranked[0].answer == weights.most_common(1)[0][0]
    assert {candidate.node for candidate in one.ranked[: len(kept)]} == {candidate.node for candidate in kept}


@pytest.mark.parametrize(
    "wrong", [{"n": 4, "shortest": 5}, {"shortest": 2, "confidence": {}}, {"confidence": {"keep": 0}}]
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        STRATEGY.validate_python({"name": "self_consistency"} | wrong)
