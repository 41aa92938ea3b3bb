"""Speculation changes when something is generated, and nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.domain.strategy import STRATEGY, StepSearch
from ponder_worker.search.expansion.search_limits import SearchLimits

from ..conftest import SPECS, THOUGHT, Attempt, attempt, run
from ..test_resume import LIMITS, made, outcome

STEPS = [spec for spec in SPECS if isinstance(STRATEGY.validate_python(spec), StepSearch)]
BEAM = {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 6}


def counts(one: Attempt) -> tuple[int, int, int]:
    """Returns hits, misses and wasted tokens."""
    told = one.search.tree.counts
    return told.get("speculation_hits", 0), told.get("speculation_misses", 0), told.get("misguessed_tokens", 0)


@settings(max_examples=200)
@given(
    st.sampled_from(SPECS),
    st.none() | st.integers(1, 200),
    st.none() | st.integers(1, 60),
    st.integers(1, 50),
    st.integers(0, 50),
    st.integers(0, 10**6),
    st.sampled_from([0.5, 1.0]),
)
def test_the_tree_is_the_same_with_guesses_and_without(
    spec: dict[str, Any], tokens: int | None, per_sample: int | None, room: int, job_seed: int, clock: int, often: float
) -> None:
    limits = SearchLimits(tokens, per_sample, room)
    with_guesses = attempt(limits, rng=random.Random(clock), job_seed=job_seed, speculates=often)
    without = attempt(limits, rng=random.Random(clock + 1), job_seed=job_seed)
    run(with_guesses, spec)
    run(without, spec)
    assert outcome(with_guesses) == outcome(without)
    assert made(with_guesses) == made(without)
    with_guesses.search.expander.close()
    tree, engine = with_guesses.search.tree, with_guesses.engine
    assert not engine.guesses, "a guess outlives its search"
    if not any(node.forced for node in tree.nodes):
        assert engine.num_generated == tree.num_tokens + counts(with_guesses)[2], "every token is in the tree or wasted"
    assert sum(node.is_speculative for node in tree.nodes) == counts(with_guesses)[0]


@settings(max_examples=100)
@given(
    st.sampled_from(STEPS),
    st.sampled_from(LIMITS),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 7)), min_size=1, max_size=4),
)
def test_killed_in_the_middle_of_guesses_it_ends_the_same(
    spec: dict[str, Any], limits: SearchLimits, job_seed: int, lives: list[tuple[int, int]]
) -> None:
    """Each life is (killed after this step, saved every so many steps)."""
    whole = attempt(limits, rng=random.Random(1), job_seed=job_seed)
    run(whole, spec)
    deltas: list[dict[str, Any]] = []
    for life, (killed_at, tick) in enumerate([*lives, (10**6, 1)]):
        one = attempt(limits, rng=random.Random(life), deltas=deltas, job_seed=job_seed, speculates=1.0)

        def step(number: int, one: Attempt = one, killed_at: int = killed_at, tick: int = tick) -> bool:
            if number % tick == 0:
                one.save()
            return number < killed_at

        if run(one, spec, after_step=step) is not None:
            break
        deltas = json.loads(json.dumps(one.deltas))
    assert outcome(one) == outcome(whole)
    assert made(one) == made(whole)


def test_guesses_are_hit_and_their_nodes_say_so() -> None:
    hits = 0
    for job_seed in range(20):
        one = attempt(LIMITS[0], rng=random.Random(job_seed), job_seed=job_seed, speculates=1.0)
        run(one, BEAM)
        one.save()
        hits += counts(one)[0]
        told = sum(row.get("is_speculative", False) for delta in one.deltas for row in delta["nodes"])
        assert told == counts(one)[0]
    assert hits > 0


def test_a_job_never_runs_more_streams_than_it_would_without_guesses() -> None:
    one = attempt(LIMITS[0], rng=random.Random(0), speculates=1.0)

    def look(number: int) -> bool:
        assert len(one.engine.streams) <= 4
        return True

    run(one, BEAM, after_step=look)
    assert counts(one)[1] > 0


def test_a_search_that_was_told_to_end_guesses_no_more() -> None:
    for ended_at in range(3, 20):
        one = attempt(LIMITS[0], rng=random.Random(0), speculates=1.0)

        def step(number: int, one: Attempt = one, ended_at: int = ended_at) -> bool:
            if number == ended_at:
                one.search.end("deadline")
            assert number < ended_at or not one.engine.guesses
            return True

        run(one, BEAM, after_step=step)


def test_a_step_that_begins_in_a_thought_is_not_guessed() -> None:
    limits, hits = SearchLimits(None, None, 60, thinking_tokens=12), 0
    for job_seed in range(30):
        one = attempt(limits, rng=random.Random(0), job_seed=job_seed, thought=THOUGHT, speculates=1.0)
        other = attempt(limits, rng=random.Random(1), job_seed=job_seed, thought=THOUGHT)
        run(one, BEAM)
        run(other, BEAM)
        assert outcome(one) == outcome(other)
        assert made(one) == made(other)
        guessed = [node for node in one.search.tree.nodes if node.is_speculative]
        hits += len(guessed)
        for node in guessed:
            turn = one.search.tree.ids_to(node)[len(one.search.root.ids) : node.start]
            assert not THOUGHT.measure(one.search.root.ids, turn)[1]
    assert hits > 0
