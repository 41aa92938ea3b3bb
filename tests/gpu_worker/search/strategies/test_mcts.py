"""Monte Carlo tree search, worked out by hand."""

from __future__ import annotations

from .script import play

SPEC = {"name": "mcts", "n": 10, "width": 2, "exploration": 1.0}
SCRIPT = {
    "": [("a\n", 0.6), ("b\n", 0.5)],
    "a\n": [("1\n", 0.1), ("2", 0.2)],
    "b\n": [("3\n", 0.9), ("4", 0.3)],
    "b\n3\n": [("5", 0.95), ("6", 0.05)],
    "a\n1\n": [("7", 0.7), ("8", 0.4)],
}


def test_a_tree_worked_out_by_hand() -> None:
    """Visits N and mean values Q of the root's children before each choice; P is 1/2.

        root N   a: N   Q     bound                       b: N   Q     bound
        2           1   0.6   0.6 + 0.707 / 2 = 0.954        1   0.5   0.5 + 0.707 / 2 = 0.854     a
        4           3   0.3   0.3 + 1.0 / 4   = 0.55         1   0.5   0.5 + 1.0 / 2   = 1.0       b
        6           3   0.3   0.3 + 1.225 / 4 = 0.606        3   0.57  0.57 + 1.225 / 4 = 0.873    b, 3: 4 is over
        8           3   0.3                                  no leaf of b is open                  a, 1: 2 is over

    Then no leaf is open at all, and the rest of the simulations is not spent.
    """
    ranked, asked = play(SCRIPT, SPEC)
    assert asked == ["", "", "a\n", "a\n", "b\n", "b\n", "b\n3\n", "b\n3\n", "a\n1\n", "a\n1\n"]
    assert ranked == [
        ("b\n3\n5", 0.95), ("a\n1\n7", 0.7), ("a\n1\n8", 0.4), ("b\n4", 0.3), ("a\n2", 0.2), ("b\n3\n6", 0.05)
    ]  # fmt: skip


def test_n_is_how_often_a_leaf_grows() -> None:
    ranked, asked = play(SCRIPT, SPEC | {"n": 3})
    assert asked == ["", "", "a\n", "a\n", "b\n", "b\n"]
    assert ranked == [("b\n4", 0.3), ("a\n2", 0.2)]


def test_without_exploration_it_follows_the_highest_mean() -> None:
    script = SCRIPT | {"a\n": [("1\n", 0.5), ("2\n", 0.5)], "a\n1\n": [("7", 0.7), ("8", 0.4)]}
    _, greedy = play(script, SPEC | {"n": 3, "exploration": 0.0})
    _, curious = play(script, SPEC | {"n": 3})
    assert greedy[4:] == ["a\n1\n"] * 2
    assert curious[4:] == ["b\n"] * 2


def test_with_nothing_whole_the_best_open_path_is_grown_to_its_end() -> None:
    ranked, asked = play(SCRIPT | {"a\n": [("1\n2\n", 0.1)]}, SPEC | {"n": 1})
    assert asked == ["", "", "a\n"]
    assert ranked == [("a\n1\n2\n", 0.1)]


def test_at_its_depth_limit_a_line_break_does_not_stop_a_path() -> None:
    ranked, asked = play({"": [("a\n", 0.6), ("b\n", 0.5)]}, SPEC | {"max_rounds": 1})
    assert asked == ["", ""]
    assert ranked == [("a\n", 0.6), ("b\n", 0.5)]
