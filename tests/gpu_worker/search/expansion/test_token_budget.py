"""A budget of tokens is a hard wall, and who gets tokens does not depend on time."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.expansion.token_budget import TokenBudget

from ..conftest import SPECS, attempt, num_sampled, run


def test_five_of_eight_are_five_whole_ones_not_eight_stubs() -> None:
    budget = TokenBudget(500)
    granted: list[int] = []
    for _ in range(8):
        budget.reserve(100, is_whole=True, answer=granted.append)
    assert granted == [100] * 5
    for _ in range(5):
        budget.settle(100, 100)
    assert granted == [100] * 5 + [0] * 3


def test_what_a_sample_returns_lets_another_start() -> None:
    budget = TokenBudget(250)
    granted: list[int] = []
    for _ in range(4):
        budget.reserve(100, is_whole=True, answer=granted.append)
    budget.settle(100, 20)
    assert granted == [100, 100, 100]
    assert budget.used + budget.reserved == 220


def test_who_leaves_the_line_lets_the_next_one_in() -> None:
    budget = TokenBudget(100)
    granted: list[int] = []
    budget.reserve(80, is_whole=True, answer=granted.append)
    first = budget.reserve(50, is_whole=True, answer=granted.append)
    budget.reserve(10, is_whole=True, answer=granted.append)
    budget.withdraw(first)
    assert granted == [80, 10]


def test_a_cap_that_no_person_set_shrinks_to_what_is_left_but_not_below_the_longest_sample() -> None:
    budget = TokenBudget(100)
    granted: list[int] = []
    for _ in range(4):
        budget.reserve(1000, is_whole=False, answer=granted.append)
    assert granted == [100]
    budget.settle(100, 40)
    assert granted == [100, 60]
    budget.settle(60, 30)
    assert granted == [100, 60, 0, 0]


def test_what_is_left_is_granted_if_the_longest_sample_would_just_fit() -> None:
    budget = TokenBudget(100)
    granted: list[int] = []
    for _ in range(3):
        budget.reserve(1000, is_whole=False, answer=granted.append)
    budget.settle(100, 50)
    assert granted == [100, 50]
    budget.settle(50, 10)
    assert granted == [100, 50, 0], "40 are left, and a sample had 50"


def test_after_samples_of_one_token_a_last_token_is_granted() -> None:
    budget = TokenBudget(2)
    granted: list[int] = []
    for _ in range(2):
        budget.reserve(1000, is_whole=False, answer=granted.append)
    budget.settle(2, 1)
    assert granted == [2, 1]


@pytest.mark.parametrize(("used", "reserved"), [(60, 41), (101, 0), (0, 101), (10, -1)])
def test_the_check_notices_a_limit_that_was_passed_or_could_be(used: int, reserved: int) -> None:
    budget = TokenBudget(100)
    budget.used, budget.reserved = 60, 40
    budget.check()
    budget.used, budget.reserved = used, reserved
    with pytest.raises(AssertionError):
        budget.check()


def test_nobody_overtakes_the_first_in_line() -> None:
    budget = TokenBudget(100)
    answers: list[tuple[str, int]] = []
    for name, cap in (("a", 80), ("b", 50), ("c", 10)):
        budget.reserve(cap, is_whole=True, answer=lambda tokens, name=name: answers.append((name, tokens)))
    assert answers == [("a", 80)]
    budget.settle(80, 60)
    assert answers == [("a", 80), ("b", 0), ("c", 10)]


def test_a_closed_wall_refuses_everybody() -> None:
    budget = TokenBudget(None)
    granted: list[int] = []
    budget.close()
    budget.reserve(10, is_whole=True, answer=granted.append)
    assert granted == [0]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.lists(st.tuples(st.integers(1, 120), st.booleans()), min_size=1, max_size=20), st.data())
def test_who_is_granted_how_much_is_the_same_in_every_order_of_ends(
    tokens: int, requests: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """Each sample's length is its own; only when it ends is left to chance."""
    lengths = [data.draw(st.integers(1, cap)) for cap, _ in requests]

    def play(rng: random.Random) -> list[int]:
        budget, granted, running = TokenBudget(tokens), [-1] * len(requests), list[int]()

        def answer(index: int, cap: int) -> None:
            granted[index] = cap
            if cap:
                running.append(index)

        for index, (cap, whole) in enumerate(requests):
            budget.reserve(cap, is_whole=whole, answer=partial(answer, index))
        while running:
            index = running.pop(rng.randrange(len(running)))
            budget.settle(granted[index], min(lengths[index], granted[index]))
            budget.check()
        assert -1 not in granted
        assert budget.reserved == 0
        return granted

    assert play(random.Random(1)) == play(random.Random(2))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SPECS),
    st.integers(1, 200),
    st.none() | st.integers(1, 60),
    st.integers(1, 50),
    st.integers(0, 10**6),
)
def test_no_strategy_passes_the_wall_by_one_token_under_any_interleaving(
    spec: dict[str, Any], tokens: int, per_sample: int | None, room: int, clock: int
) -> None:
    limits = SearchLimits(tokens, per_sample, room)
    one, other = attempt(limits, rng=random.Random(clock)), attempt(limits, rng=random.Random(clock + 1))
    ranked, again = run(one, spec), run(other, spec)
    tree = one.search.tree
    assert tree.num_tokens == one.search.expander.budget.used <= tokens
    assert one.engine.num_generated == num_sampled(tree)
    assert one.search.expander.budget.reserved == 0
    for leaf in tree.nodes[1:]:
        most = one.engine.context_length if leaf.prompt.is_prompt else min(room, per_sample or room)
        assert sum(len(node.ids) for node in leaf.path()) <= most
    assert ranked, "a budget of one token makes one token"
    assert again
    assert [c.node.address for c in ranked] == [c.node.address for c in again], "time decided something"
    assert sorted(n.address for n in tree.nodes) == sorted(n.address for n in other.search.tree.nodes)
