"""Samples that think before they answer: held off their end, and brought to their answer in time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.node import Node

from ..conftest import CLOSE, CLOSING, OPEN, PIECES, PROMPT, THOUGHT, WAIT, Attempt, attempt, run
from ..test_resume import killed_everywhere

FORCING: dict[str, Any] = {"name": "budget_forcing", "num_waits": 2, "answer": "So:"}
SPECS: list[dict[str, Any]] = [
    {"name": "direct"},
    {"name": "self_consistency", "n": 4},
    {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 4},
    {"name": "refine", "n": 3},
    FORCING,
]
LIMITS = [SearchLimits(None, None, 40, 6), SearchLimits(60, None, 40), SearchLimits(70, 25, 40, 9)]


def thinking(
    limits: SearchLimits, spec: dict[str, Any], job_seed: int = 0, thought: Thought | None = THOUGHT
) -> Attempt:
    one = attempt(limits, rng=random.Random(job_seed), job_seed=job_seed, thought=thought)
    run(one, spec)
    return one


def forced(node: Node) -> list[tuple[int, list[int]]]:
    return [(first, node.ids[first : first + num]) for first, num in node.forced]


def test_a_thought_is_closed_at_its_limit_and_an_answer_follows() -> None:
    num_closed = 0
    for job_seed in range(50):
        one = thinking(SearchLimits(None, None, 60, 7), {"name": "self_consistency", "n": 3}, job_seed)
        for node in one.search.tree.nodes[1:]:
            num_tokens, is_open = THOUGHT.measure(PROMPT, node.ids)
            assert num_tokens <= 7 + 1, "seven, and the closing sentence's own token"
            assert not is_open or node.ids[-1] == 0 or node.stop == "settled"
            if node.forced and node.stop != "settled":
                assert forced(node) == [(1 + 7, [CLOSING, CLOSE])]
                assert len(node.ids) > 1 + 7 + 2
                num_closed += 1
    assert num_closed > 20


def test_a_thought_that_was_cut_off_is_no_answer() -> None:
    num_open = num_closed = 0
    for job_seed in range(60):
        search = thinking(SearchLimits(None, None, 12), {"name": "self_consistency", "n": 3}, job_seed).search
        for node in search.tree.nodes[1:]:
            if THOUGHT.measure(PROMPT, node.ids)[1]:
                assert search.candidate(node).answer is None
                num_open += 1
            elif search.text(node).rpartition("</think>")[2].strip("a\n"):
                assert search.candidate(node).answer is not None
                num_closed += 1
    assert num_open > 20
    assert num_closed > 20


def test_near_the_wall_a_thinking_sample_is_told_to_answer() -> None:
    """The answer keeps 5 of 30 tokens, and the closing takes 2."""
    num_closed = 0
    for job_seed in range(150):
        (node,) = thinking(SearchLimits(30, None, 1000), {"name": "direct"}, job_seed).search.tree.nodes[1:]
        if node.forced:
            assert forced(node) == [(23, [CLOSING, CLOSE])]
            num_closed += 1
    assert num_closed > 3


def test_a_wait_takes_the_place_of_the_end_of_a_thought() -> None:
    waits = set()
    for job_seed in range(50):
        one = thinking(SearchLimits(None, None, 200), FORCING, job_seed)
        (node,) = one.search.tree.nodes[1:]
        held_off = [first for first, ids in forced(node) if ids == [WAIT]]
        if CLOSE in node.ids:
            assert len(held_off) == 2
            assert max(held_off) < node.ids.index(CLOSE)
        waits.add(len(held_off))
    assert waits == {0, 1, 2}, "a sample that ends in mid-thought, or without one, is over"


def test_a_wait_without_room_is_left_out_and_the_thought_ends_there() -> None:
    for job_seed in range(200):
        (node,) = thinking(SearchLimits(None, None, 60, 3), FORCING, job_seed).search.tree.nodes[1:]
        assert THOUGHT.measure(PROMPT, node.ids)[0] <= 3 + 1


def test_a_model_that_does_not_think_is_held_off_its_end_and_made_to_answer_at_the_limit() -> None:
    kinds = set()
    for job_seed in range(50):
        (node,) = thinking(SearchLimits(None, None, 60, 20), FORCING, job_seed, None).search.tree.nodes[1:]
        runs = [ids for _, ids in forced(node)]
        kinds.add(tuple(PIECES[ids[0]] for ids in runs))
        if [CLOSING] in runs:
            assert forced(node)[-1] == (20, [CLOSING])
        else:
            assert node.ids[-1] == 0
            assert 0 not in node.ids[:-1], "what a wait replaced is gone"
    assert {("Wait", "Wait"), ("Wait", "So:"), ("So:",)} <= kinds


def test_a_user_s_turn_opens_a_thought_of_its_own() -> None:
    for job_seed in range(100):
        one = thinking(SearchLimits(None, None, 300, 7), {"name": "refine", "n": 3}, job_seed)
        closed = [node for node in one.search.tree.nodes if [CLOSING, CLOSE] in [ids for _, ids in forced(node)]]
        if any(node.start > len(PROMPT) for node in closed):
            return
    pytest.fail("no second try was brought to its answer")


@pytest.mark.parametrize("when", ["after_step", "after_turn"])
@pytest.mark.parametrize("limits", LIMITS, ids=["thinking", "tight", "whole"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_killed_at_any_await_also_in_a_forced_thought_it_ends_the_same(
    spec: dict[str, Any], limits: SearchLimits, when: str
) -> None:
    killed_everywhere(spec, limits, when, thought=THOUGHT)


@given(
    st.sampled_from(SPECS),
    st.integers(1, 120),
    st.none() | st.integers(1, 60),
    st.integers(1, 80),
    st.none() | st.integers(1, 30),
    st.integers(0, 10**6),
)
def test_thinking_included_no_strategy_passes_the_wall(
    spec: dict[str, Any], tokens: int, per_sample: int | None, room: int, thinking_tokens: int | None, job_seed: int
) -> None:
    tree = thinking(SearchLimits(tokens, per_sample, room, thinking_tokens), spec, job_seed).search.tree
    assert tree.num_tokens <= tokens
    for leaf in tree.nodes[1:]:
        assert sum(len(node.ids) for node in leaf.path()) <= min(room, per_sample or room)
        assert OPEN not in leaf.ids[1:]
