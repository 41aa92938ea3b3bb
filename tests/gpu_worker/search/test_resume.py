"""A strategy killed anywhere and run again on its saved tree ends as if it had never been killed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.node import NodeState
from ponder_worker.search.tree.search_tree import SearchTree

from .conftest import JOB_SEED, SPECS, THOUGHT, Attempt, attempt, num_sampled, run

LIMITS = [SearchLimits(None, None, 40), SearchLimits(60, None, 40), SearchLimits(70, 20, 40)]


def made(one: Attempt) -> dict[tuple[int, ...], Any]:
    """Everything that a job leaves, by address: the order in which nodes were made may differ, and nothing else.

    What was settled before it was wanted is left out: how far it had come is the clock's.
    """
    return {
        node.address: (
            (node.ids, node.is_prompt, node.state, node.stop, node.logprob, node.cap, node.forced),
            (node.score, node.passed),
        )
        for node in one.search.tree.nodes
        if node.stop != "settled" and not (node.state is NodeState.PRUNED and node.stop != "separator")
    }


def outcome(one: Attempt) -> Any:
    assert one.ranked is not None
    tree = one.search.tree
    chosen = [(candidate.node.address, candidate.text, candidate.answer, candidate.score) for candidate in one.ranked]
    return chosen, {name: addressed(decision, tree) for name, decision in tree.decisions.items()}


def addressed(decision: Any, tree: SearchTree) -> Any:
    """Replaces the numbers of nodes by their addresses."""
    if isinstance(decision, list):
        return [addressed(one, tree) for one in decision]
    if not isinstance(decision, dict):
        return decision
    nodes = [tree.nodes[index].address for index in decision.get("nodes", ())]
    return {name: addressed(told, tree) for name, told in decision.items() if name != "nodes"} | {"nodes": nodes}


@pytest.mark.parametrize("when", ["after_step", "after_turn"])
@pytest.mark.parametrize("limits", LIMITS, ids=["unlimited", "tight", "whole"])
def test_killed_at_any_await_it_ends_with_the_same_answer_and_the_same_tokens(
    spec: dict[str, Any], limits: SearchLimits, when: str
) -> None:
    killed_everywhere(spec, limits, when)


def killed_everywhere(spec: dict[str, Any], limits: SearchLimits, when: str, **changes: Any) -> Attempt:
    """Returns the attempt that was never killed."""
    whole = attempt(limits, rng=random.Random(0), **changes)
    num_steps = [0]

    def count(number: int) -> bool:
        num_steps[0] = number
        return True

    run(whole, spec, after_step=count)
    for killed_at in range(1, num_steps[0]):
        first = attempt(limits, rng=random.Random(0), **changes)
        run(first, spec, **{when: lambda number, stop=killed_at: number < stop})
        first.save()
        deltas = json.loads(json.dumps(first.deltas))
        second = attempt(limits, rng=random.Random(killed_at), deltas=deltas, **changes)
        saved = num_sampled(second.search.tree)
        run(second, spec)
        assert outcome(second) == outcome(whole)
        assert made(second) == made(whole)
        assert second.engine.num_generated == num_sampled(second.search.tree) - saved, "a saved token was made again"
    return whole


def killed_again_and_again(
    spec: dict[str, Any], limits: SearchLimits, job_seed: int, lives: list[tuple[int, int]], **changes: Any
) -> tuple[Attempt, Attempt]:
    """Returns the last attempt and one that was never killed. Lives: (killed after this step, steps between saves)."""
    whole = attempt(limits, rng=random.Random(1), job_seed=job_seed, **changes)
    run(whole, spec)
    deltas: list[dict[str, Any]] = []
    for life, (killed_at, tick) in enumerate(lives):
        one = attempt(limits, rng=random.Random(life), deltas=deltas, job_seed=job_seed, **changes)

        def step(number: int, one: Attempt = one, killed_at: int = killed_at, tick: int = tick) -> bool:
            if number % tick == 0:
                one.save()
            return number < killed_at

        run(one, spec, after_step=step)
        if one.ranked is not None:
            return one, whole
        deltas = json.loads(json.dumps(one.deltas))
    one = attempt(limits, rng=random.Random(99), deltas=deltas, job_seed=job_seed, **changes)
    run(one, spec)
    return one, whole


JUDGES: dict[str, dict[str, Any]] = {
    "accept": {"accept": {"by": "judge", "max_tokens": 6}},
    "accept by several": {"accept": {"by": "judge", "n": 3, "max_tokens": 5}},
    "verifier": {"judge": {"name": "judge", "max_tokens": 6}},
    "both": {"accept": {"by": "judge", "max_tokens": 6}, "judge": {"name": "judge", "n": 4, "max_tokens": 6}},
}


@pytest.mark.parametrize("when", ["after_step", "after_turn"])
@pytest.mark.parametrize("limits", LIMITS, ids=["unlimited", "tight", "whole"])
@pytest.mark.parametrize("thought", [None, THOUGHT], ids=["plain", "thinking"])
@pytest.mark.parametrize("judged", JUDGES.values(), ids=JUDGES)
def test_killed_while_a_judge_replies_it_ends_with_the_same_verdict(
    judged: dict[str, Any], thought: Thought | None, limits: SearchLimits, when: str
) -> None:
    spec = {"name": "self_consistency", "n": 3, "early_stopping": None}
    whole = killed_everywhere(spec, limits, when, thought=thought, job_seed=2, **judged)
    num_asked = sum(node.is_prompt for node in whole.search.tree.nodes)
    assert num_asked == len(judged) or limits.tokens is not None


@settings(max_examples=150)
@given(
    st.sampled_from(SPECS),
    st.sampled_from(LIMITS),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 7)), min_size=1, max_size=4),
    st.sampled_from([{}, *JUDGES.values()]),
)
def test_killed_many_times_with_ticks_lost_it_ends_the_same(
    spec: dict[str, Any],
    limits: SearchLimits,
    job_seed: int,
    lives: list[tuple[int, int]],
    judged: dict[str, Any],
) -> None:
    one, whole = killed_again_and_again(spec, limits, job_seed, lives, **judged)
    assert outcome(one) == outcome(whole)
    assert made(one) == made(whole)


@pytest.mark.parametrize(
    ("job_seed", "lives"), [(39, [(30, 2), (17, 6), (12, 5)]), (44, [(7, 5), (30, 2), (17, 4), (21, 6)])]
)
def test_who_was_refused_does_not_wait_for_half_grown_steps_of_later_rounds(
    job_seed: int, lives: list[tuple[int, int]]
) -> None:
    beam = {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 6}
    one, whole = killed_again_and_again(beam, SearchLimits(70, 20, 40), job_seed, lives)
    assert outcome(one) == outcome(whole)
    assert one.search.expander.has_refused_samples


def test_no_node_is_scored_twice_over_all_attempts(spec: dict[str, Any]) -> None:
    first = attempt(LIMITS[0], rng=random.Random(3))
    run(first, spec, after_step=lambda number: number < 15)
    first.save()
    scored = sum(node.score is not None for node in first.search.tree.nodes)
    second = attempt(LIMITS[0], rng=random.Random(4), deltas=first.deltas)
    run(second, spec)
    total = sum(node.score is not None for node in second.search.tree.nodes)
    assert second.engine.num_scores == total - scored


def test_folding_the_deltas_gives_the_tree(spec: dict[str, Any]) -> None:
    one = attempt(LIMITS[1], rng=random.Random(2))

    def step(number: int) -> bool:
        one.save()
        return True

    run(one, spec, after_step=step)
    one.save()
    folded = SearchTree.fold(JOB_SEED, json.loads(json.dumps(one.deltas)))
    decode = one.search.text
    assert folded.document(lambda node: "") == one.search.tree.document(lambda node: "")
    assert folded.delta() is None
    assert [decode(node) for node in one.search.tree.nodes[1:]]


def test_a_search_that_was_told_to_end_stays_ended() -> None:
    first = attempt(LIMITS[0], rng=random.Random(0))
    spec = {"name": "self_consistency", "n": 5}

    def step(number: int) -> bool:
        if number == 4:
            first.search.end("deadline")
            first.save()
        return number < 4

    run(first, spec, after_step=step)
    second = attempt(LIMITS[0], rng=random.Random(0), deltas=first.deltas)
    ranked = run(second, spec)
    assert ranked is not None
    assert second.engine.num_generated == 0
    assert second.search.tree.ended == "deadline"
    assert {node.stop for node in second.search.tree.nodes[1:] if node.state is NodeState.CANCELLED} == {"deadline"}
    assert all(not candidate.is_complete or candidate.node.stop == "stop" for candidate in ranked)
