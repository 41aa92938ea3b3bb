"""The way to an answer, and siblings that say the same."""

from __future__ import annotations

from ponder.domain.tree.tree_shape import best_path, children_of, titled_trees, twins

_NODES = [
    {"parent": -1},
    {"parent": 0, "text": "a"},
    {"parent": 0, "text": "a\n"},
    {"parent": 0, "text": "b"},
    {"parent": 2, "text": "c"},
]


def test_the_best_path_leads_from_the_chosen_leaf_to_the_root() -> None:
    assert best_path({"nodes": _NODES, "candidates": [{"node": 4}, {"node": 3}], "chosen": 0}) == {4, 2}
    assert best_path({"nodes": _NODES, "candidates": [], "chosen": None}) == set()


def test_siblings_with_the_same_text_stand_for_each_other_unless_they_are_important() -> None:
    assert children_of(_NODES)[0] == [1, 2, 3]
    assert twins(_NODES, [1, 2, 3], set()) == {1: 1, 2: 1, 3: 3}
    assert twins(_NODES, [1, 2, 3], {2}) == {2: 2, 1: 2, 3: 3}
    assert twins(_NODES, [1, 2, 3], {1, 2}) == {1: 1, 2: 2, 3: 3}


def test_nodes_whose_text_is_not_known_yet_are_not_the_same() -> None:
    growing = [{"parent": -1}, {"parent": 0, "text": None}, {"parent": 0, "text": None}]
    assert twins(growing, [1, 2], set()) == {1: 1, 2: 2}


def test_only_the_step_that_answered_has_a_chosen_path() -> None:
    stages = [{"stage": 0, "strategy": "direct", "model": "m", "chosen": 0}, {"stage": 1, "model": "n", "chosen": 0}]
    trees = titled_trees("cascade", {"stages": stages, "answered_by": 1})
    assert [tree["chosen"] for _, tree in trees] == [None, 0]
    assert trees[0][0] == "stage 0: direct on m"
