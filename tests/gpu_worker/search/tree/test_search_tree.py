"""The tree as a checkpoint: folding its deltas rebuilds it, whenever they were taken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.tree.delta_recorder import Keep
from ponder_worker.search.tree.node import Node, NodeState
from ponder_worker.search.tree.search_tree import SearchTree

PROMPT = [7, 8]


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def values(node: Node) -> dict[str, Any]:
    """Everything that a later attempt may look at. Texts are made anew from ids."""
    found = {field.name: getattr(node, field.name) for field in fields(node) if field.name not in ("parent", "text")}
    return found | {"parent": node.parent.index if node.parent else None}


def facts(tree: SearchTree) -> tuple[Any, ...]:
    growing = [node.index for node in tree.growing]
    return [values(node) for node in tree.nodes], tree.ended, tree.counts, tree.decisions, tree.refused, growing


def act(tree: SearchTree, name: str, which: int, num: int) -> None:
    """Does to the tree what a search may do to it."""
    growing = list(tree.growing)
    node = growing[which % len(growing)] if growing else None
    ended = [node for node in tree.nodes[1:] if node.state is not NodeState.GROWING]
    if name == "add":
        parent = [tree.root, *ended][which % (1 + len(ended))]
        ordinal = sum(child.parent is parent for child in tree.nodes)
        tree.add(parent, ordinal, 50 + num)
    elif name == "ask":
        tree.add_prompt(sum(child.parent is tree.root for child in tree.nodes), list(range(70, 71 + num)))
    elif name == "extend" and node is not None:
        tops = [[[90 + k, -0.5]] for k in range(num)]
        tree.extend(node, list(range(60, 60 + num)), [-0.1 * k for k in range(num)], tops)
    elif name == "force" and node is not None:
        tree.force(node, list(range(90, 90 + num)), drop=min(which % 3, len(node.ids)))
    elif name == "finish" and node is not None:
        tree.finish(node, "stop", tree.spell(node, decode), stop_chars=which % 3)
    elif name == "cancel" and node is not None:
        tree.cancel(node, "deadline", tree.spell(node, decode))
    elif name == "speculative" and node is not None:
        tree.mark_speculative(node)
    elif name == "judge" and ended:
        one = ended[which % len(ended)]
        tree.set_score(one, -float(num))
        tree.set_verdict(one, (True, False, None)[which % 3], "why")
        tree.prune(one)
    elif name == "facts":
        tree.count("recomputed_tokens", num)
        tree.decide(f"decision {which}", ["beam", None][num % 2])
        tree.refuse(tree.root, 100 + which, "budget")
    elif name == "end":
        tree.end("deadline")


ACTIONS = [
    "add",
    "ask",
    "extend",
    "extend",
    "force",
    "force",
    "finish",
    "cancel",
    "speculative",
    "judge",
    "facts",
    "end",
]


@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 20), st.integers(0, 5), st.booleans()), max_size=40),
    st.sampled_from(Keep),
)
def test_folding_deltas_taken_at_any_time_rebuilds_the_tree(
    actions: list[tuple[str, int, int, bool]], keep: Keep
) -> None:
    tree, deltas = SearchTree(3, PROMPT, keep=keep), []
    for name, which, num, is_saved in [*actions, ("none", 0, 0, True)]:
        act(tree, name, which, num)
        if is_saved and (delta := tree.delta()) is not None:
            deltas.append(json.loads(json.dumps(delta)))
    assert tree.delta() is None
    folded = SearchTree.fold(3, deltas, keep=keep)
    assert facts(folded) == facts(tree)
    assert folded.delta() is None
    assert [folded.child(node.parent, node.ordinal) for node in folded.nodes[1:] if node.parent] == folded.nodes[1:]


def test_a_prompt_of_its_own_begins_anew_and_counts_nothing() -> None:
    tree = SearchTree(3, PROMPT)
    answer = tree.add(tree.root, 0, 50)
    tree.extend(answer, [65, 66], [-1.0, -1.0])
    asked = tree.add_prompt(1, [70, 71, 72])
    reply = tree.add(asked, 0, 50)
    tree.extend(reply, [67], [-1.0])
    assert tree.ids_to(reply) == [70, 71, 72, 67]
    assert tree.ids_to(answer) == [*PROMPT, 65, 66]
    assert (reply.start, reply.prompt, answer.prompt) == (3, asked, tree.root)
    assert (tree.num_tokens, tree.num_judge_tokens) == (3, 1)
    assert tree.text_of(reply, decode) == "C"
    delta = tree.delta()
    assert delta is not None
    assert {row["node"]: row.get("ids") for row in delta["nodes"]} == {0: PROMPT, 1: [65, 66], 2: None, 3: [67]}
    document = tree.document(lambda node: "text")["nodes"]
    assert [node.get("prompt", False) for node in document] == [False, False, True, False]
    assert {name: document[2][name] for name in ("parent", "ids", "tokens", "text", "logprob", "state")} == {
        "parent": 0,
        "ids": [],
        "tokens": 0,
        "text": "",
        "logprob": None,
        "state": "finished",
    }


def test_a_delta_holds_no_id_that_an_earlier_one_held() -> None:
    tree = SearchTree(3, PROMPT)
    node = tree.add(tree.root, 0, 50)
    tree.extend(node, [65, 66], [-1.0, -1.0])
    first = tree.delta()
    assert first is not None
    assert [row.get("ids") for row in first["nodes"]] == [PROMPT, [65, 66]]
    tree.extend(node, [67], [-1.0])
    assert tree.delta() == {"nodes": [{"node": 1, "ids": [67], "logprob": -3.0}]}
    tree.set_score(node, -2.0)
    assert tree.delta() == {"nodes": [{"node": 1, "score": -2.0}]}


def test_a_delta_says_how_many_saved_ids_are_kept_where_others_were_dropped() -> None:
    tree = SearchTree(3, PROMPT)
    node = tree.add(tree.root, 0, 50)
    tree.extend(node, [65, 66, 67], [-1.0, -1.0, -1.0])
    deltas = [tree.delta()]
    tree.force(node, [90], drop=2)
    deltas.append(tree.delta())
    assert deltas[1] == {"nodes": [{"node": 1, "forced": ((1, 1),), "keep": 1, "ids": [90], "logprob": -3.0}]}
    tree.force(node, [91])
    deltas.append(tree.delta())
    assert deltas[2] == {"nodes": [{"node": 1, "forced": ((1, 1), (2, 1)), "ids": [91], "logprob": -3.0}]}
    assert SearchTree.fold(3, [delta for delta in deltas if delta]).nodes[1].ids == [65, 90, 91]


def test_ids_that_were_dropped_just_before_the_node_ended_are_told_too() -> None:
    tree = SearchTree(3, PROMPT)
    node = tree.add(tree.root, 0, 50)
    tree.extend(node, [65, 66, 67], [-1.0, -1.0, -1.0])
    deltas = [tree.delta()]
    tree.force(node, [90], drop=2)
    tree.finish(node, "stop", "")
    deltas.append(tree.delta())
    assert SearchTree.fold(3, [delta for delta in deltas if delta]).nodes[1].ids == [65, 90]


def test_what_cannot_be_judged_is_not_recorded_because_another_worker_may_judge_it() -> None:
    tree = SearchTree(3, PROMPT)
    node = tree.add(tree.root, 0, 50)
    tree.delta()
    tree.set_verdict(node, None, "no sandbox here")
    assert (node.passed, node.feedback, tree.delta()) == (None, None, None)


def test_only_a_finished_node_is_pruned() -> None:
    tree = SearchTree(3, PROMPT)
    finished, cancelled, growing = (tree.add(tree.root, ordinal, 50) for ordinal in range(3))
    tree.finish(finished, "stop", "")
    tree.cancel(cancelled, "deadline", "")
    for node in (finished, cancelled, growing):
        tree.prune(node)
    assert [node.state for node in tree.nodes[1:]] == [NodeState.PRUNED, NodeState.CANCELLED, NodeState.GROWING]


def test_a_forced_run_replaces_the_last_ids_and_their_log_probabilities() -> None:
    tree = SearchTree(3, PROMPT, keep=Keep.LOGPROBS)
    node = tree.add(tree.root, 0, 50)
    tree.extend(node, [65, 66, 67], [-1.0, -2.0, -4.0])
    tree.force(node, [90, 91], drop=1)
    assert (node.ids, node.logprobs, node.forced) == ([65, 66, 90, 91], [-1.0, -2.0, 0.0, 0.0], ((2, 2),))
    assert tree.num_tokens == 4
    assert tree.ids_to(node) == [*PROMPT, 65, 66, 90, 91]


def grown(*texts: bytes) -> tuple[SearchTree, list[Node]]:
    tree, nodes = SearchTree(3, PROMPT), list[Node]()
    for text in texts:
        node = tree.add(nodes[-1] if nodes else tree.root, 0, 50)
        tree.extend(node, list(text), [-1.0] * len(text))
        nodes.append(node)
    return tree, nodes


def test_a_character_that_begins_in_one_node_and_ends_in_the_next_belongs_to_the_next() -> None:
    tree, nodes = grown(b"caf\xc3", b"\xa9!")
    assert [tree.text_of(node, decode) for node in nodes] == ["caf�", "é!"]


def test_each_node_has_its_own_part_of_the_text() -> None:
    tree, nodes = grown(b"one ", b"two ", b"three")
    assert [tree.text_of(node, decode) for node in nodes] == ["one ", "two ", "three"]


@pytest.mark.parametrize(("stop_chars", "text", "num_before"), [(0, "END", 0), (2, "E", 0), (3, "", 0), (5, "", 2)])
def test_a_stop_string_is_cut_off_the_text_and_may_begin_in_the_nodes_before(
    stop_chars: int, text: str, num_before: int
) -> None:
    tree, nodes = grown(b"one ##", b"END")
    tree.finish(nodes[1], "stop", tree.spell(nodes[1], decode), stop_chars=stop_chars)
    assert nodes[1].text == text
    assert tree.num_stop_chars_before(nodes[1], decode) == num_before
    nodes[1].text = None
    assert tree.text_of(nodes[1], decode) == text, "made anew by a later attempt"


def test_the_document_leaves_the_prompt_out() -> None:
    tree, _ = grown(b"one")
    (root, node) = tree.document(lambda node: decode(node.ids))["nodes"]
    assert (root["ids"], root["text"], root["ordinal"]) == ([], "", 0)
    assert (node["ids"], node["text"]) == ([*b"one"], "one")


def test_a_node_starts_behind_all_ids_of_its_path() -> None:
    tree, nodes = grown(b"one ", b"two ", b"three")
    assert [node.start for node in nodes] == [2, 6, 10]
    assert tree.ids_to(nodes[1])[nodes[1].start :] == nodes[1].ids


def test_counts_add_up_and_a_count_of_nothing_is_no_change() -> None:
    tree = SearchTree(3)
    for num in (5, 0, 2):
        tree.count("recomputed_tokens", num)
    assert tree.delta() == {"nodes": [], "counts": {"recomputed_tokens": 7}}
    tree.count("recomputed_tokens", 0)
    assert tree.delta() is None
