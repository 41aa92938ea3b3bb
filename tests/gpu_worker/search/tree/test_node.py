"""Nodes and their seeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.tree.node import Node, child_seed, root_seed
from ponder_worker.search.tree.search_tree import SearchTree


def test_the_seeds_of_published_splitmix64_are_ours() -> None:
    """Vigna's reference code, started at 1234567, gives this as its first number."""
    assert root_seed(0, 1234567) == 6457827717110365317


def test_a_seed_that_the_request_names_counts_and_else_every_job_has_its_own() -> None:
    assert root_seed(1, 7) == root_seed(2, 7)
    assert root_seed(1, 0) == root_seed(2, 0) != root_seed(1, None)
    assert root_seed(1, None) != root_seed(2, None)


@given(st.integers(-(1 << 63), 1 << 64))
def test_whatever_the_seed_it_has_64_bits(seed: int) -> None:
    assert 0 <= root_seed(seed, None) < 1 << 64
    assert 0 <= root_seed(0, seed) < 1 << 64
    assert 0 <= child_seed(root_seed(0, seed), 3) < 1 << 64


def test_the_seeds_of_a_thousand_addresses_differ() -> None:
    parents = [child_seed(5, ordinal) for ordinal in range(32)]
    seeds = {5, *parents, *(child_seed(parent, ordinal) for parent in parents for ordinal in range(32))}
    assert len(seeds) == 1 + 32 + 32 * 32


def test_the_seed_of_an_address_is_the_same_in_every_version() -> None:
    """A job may be handed on to a worker of a newer version, whose samples must go on alike."""
    assert root_seed(7, None) == 4205074862696321626
    assert child_seed(5, 0) == 12773366489153039575
    assert child_seed(child_seed(5, 3), 1) == 9321395323660539877


def test_a_path_begins_below_the_root_and_an_address_is_its_ordinals() -> None:
    tree = SearchTree(1, [1, 2])
    first = tree.add(tree.root, 3, 10)
    second = tree.add(first, 1, 10)
    assert second.path() == [first, second]
    assert second.address == (3, 1)
    assert (tree.root.path(), tree.root.address) == ([], ())


def test_the_document_of_a_node_says_what_was_forced_and_judged_only_where_something_was() -> None:
    root = Node(0, None, 0, 0, 0, 0, [1, 2])
    node = Node(1, root, 2, 0, 2, 9, [5, 6], logprob=-1.5, score=-0.5, stop="stop", is_speculative=True)
    assert root.as_document("")["ids"] == []
    assert (root.as_document("")["tokens"], root.as_document("")["parent"]) == (0, -1)
    assert root.as_document("")["logprob"] is None
    plain = node.as_document("hi")
    assert plain == {
        "parent": 0,
        "ordinal": 2,
        "text": "hi",
        "ids": [5, 6],
        "tokens": 2,
        "state": "growing",
        "stop": "stop",
        "logprob": -1.5,
        "score": -0.5,
        "speculative": True,
    }
    node.forced, node.passed, node.feedback = ((0, 1),), False, "no"
    assert node.as_document("hi") == plain | {"forced": ((0, 1),), "passed": False, "feedback": "no"}
