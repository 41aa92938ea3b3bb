"""Reward-balanced search, worked out by hand."""

from __future__ import annotations

import math

from ponder_worker.search.strategies.rebase import shared
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node

from .script import play

TEMPERATURE = 0.1 / math.log(2)
"""A path whose probability is higher by 0.1 weighs twice as much."""


def test_a_tree_worked_out_by_hand() -> None:
    script = {
        # One of six has ended: five are shared as 32 : 16 : 8 : 2 : 1 of 59. The first gets 2.7, which is 3; of the two
        # that are left the second gets 16 / 27, which is 1.2 and so 2; nothing is left for the others.
        "": [("a\n", 0.9), ("b\n", 0.8), ("c\n", 0.7), ("d", 0.3), ("e\n", 0.5), ("f\n", 0.4)],
        # Three more have ended: two are shared as 2 : 1, and 1.3 is 2.
        "a\n": [("1", 0.95), ("2\n", 0.5), ("3", 0.2)],
        "b\n": [("4\n", 0.6), ("5", 0.85)],
        # In the last round a line break does not stop a path.
        "b\n4\n": [("6\n6\n", 0.7), ("7", 0.1)],
    }
    ranked, asked = play(script, {"name": "rebase", "n": 6, "max_rounds": 3, "temperature": TEMPERATURE})
    assert asked == [""] * 6 + ["a\n"] * 3 + ["b\n"] * 2 + ["b\n4\n"] * 2
    assert ranked == [
        ("a\n1", 0.95), ("b\n5", 0.85), ("b\n4\n6\n6\n", 0.7), ("d", 0.3), ("a\n3", 0.2), ("b\n4\n7", 0.1)
    ]  # fmt: skip


def test_it_ends_when_every_expansion_has_ended_in_an_answer() -> None:
    script = {"": [("a", 0.1), ("b", 0.2)]}
    ranked, asked = play(script, {"name": "rebase", "n": 2})
    assert ranked == [("b", 0.2), ("a", 0.1)]
    assert asked == ["", ""]


def paths(*chances: float | None) -> list[Candidate]:
    return [
        Candidate(Node(place, None, place, 0, 0, 0), "", None, False, None if chance is None else math.log(chance))
        for place, chance in enumerate(chances)
    ]


def shares(num: int, temperature: float, *chances: float | None) -> dict[int, int]:
    return {node.index: share for node, share in shared(paths(*chances), num, temperature)}


def test_shares_add_up_to_what_is_there_to_be_shared() -> None:
    for num in range(1, 60):
        assert sum(shares(num, 0.2, *[0.5] * 49).values()) == num
        assert sum(shares(num, 0.05, 0.9, 0.1, None, 0.4).values()) == num


def test_equal_paths_get_equal_shares_and_a_low_temperature_gives_all_to_the_best() -> None:
    assert shares(6, 1.0, 0.5, 0.5, 0.5) == {0: 2, 1: 2, 2: 2}
    assert shares(6, 0.001, 0.5, 0.9, 0.5) == {1: 6}
    assert shares(4, 1e-9, None, None) == {0: 2, 1: 2}


def test_nothing_is_shared_where_nothing_is_left() -> None:
    assert shares(0, 0.2, 0.5) == {}
    assert shares(3, 0.2) == {}
