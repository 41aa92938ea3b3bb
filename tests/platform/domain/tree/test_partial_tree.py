"""Trees from their deltas, and who made which part of them."""

from __future__ import annotations

from typing import Any

from ponder.domain.tree.partial_tree import steps_of, with_makers


def _row(node: int, ids: int = 0, **fields: Any) -> dict[str, Any]:
    return {"node": node} | ({"ids": [7] * ids} if ids else {}) | fields


_FIRST = {"nodes": [_row(0, 3), _row(1, 4, parent=0, ordinal=0, cap=9), _row(2, 5, parent=0, ordinal=1, cap=9)]}
_ENDS = {"nodes": [_row(1, state="finished", stop="stop", text="x = 1", score=0.5), _row(2, 2)]}


def test_a_growing_tree_has_what_its_deltas_tell() -> None:
    [tree] = steps_of([("inc_a", _FIRST), ("inc_a", _ENDS)]).values()
    root, ended, growing = tree.document()["nodes"]
    assert (root["tokens"], root["parent"]) == (0, -1)
    assert (ended["text"], ended["state"], ended["score"], ended["tokens"]) == ("x = 1", "finished", 0.5, 4)
    assert (growing["text"], growing["state"], growing["tokens"]) == (None, "growing", 7)


def test_tokens_that_were_forced_away_are_gone() -> None:
    [tree] = steps_of([("inc_a", _FIRST), ("inc_a", {"nodes": [_row(2, 1, keep=3)]})]).values()
    assert tree.document()["nodes"][2]["tokens"] == 4


def test_a_node_that_another_incarnation_goes_on_with_has_two_makers() -> None:
    resumed = {"nodes": [_row(2, 2), _row(3, 1, parent=1, ordinal=0, cap=9)]}
    [tree] = steps_of([("inc_a", _FIRST), ("inc_b", resumed)]).values()
    assert tree.document()["made_by"] == [
        {"incarnation_id": "inc_a", "first_node": 1},
        {"incarnation_id": "inc_b", "first_node": 3, "continued": [[2, 5]]},
    ]


def test_a_change_of_state_makes_nobody_a_maker() -> None:
    [tree] = steps_of([("inc_a", _FIRST), ("inc_b", {"nodes": [_row(1, state="pruned")]})]).values()
    assert tree.document()["made_by"][1] == {"incarnation_id": "inc_b", "first_node": 3}


def test_whoever_ended_a_tree_made_what_no_delta_holds() -> None:
    whole = {"nodes": [{"tokens": 0}, {"tokens": 4}, {"tokens": 8}, {"tokens": 6}]}
    assert with_makers(whole, [("inc_a", _FIRST)], "inc_b")["made_by"] == [
        {"incarnation_id": "inc_a", "first_node": 1},
        {"incarnation_id": "inc_b", "first_node": 3, "continued": [[2, 5]]},
    ]
    assert with_makers(whole, [], "inc_b")["made_by"] == [{"incarnation_id": "inc_b", "first_node": 1}]


def test_each_step_of_a_cascade_has_makers_of_its_own() -> None:
    first = {"step": 0, "nodes": [{"tokens": 0}, {"tokens": 4}, {"tokens": 6}]}
    second = {"step": 1, "nodes": [{"tokens": 0}, {"tokens": 2}]}
    saved = [
        ("inc_a", {"step": 0} | _FIRST),
        ("inc_b", {"step": 0, "nodes": [], "result": {"tree": first}, "next": 1}),
    ]
    stages = with_makers({"stages": [first, second], "answered_by": 1}, saved, "inc_c")["stages"]
    assert stages[0]["made_by"][1] == {"incarnation_id": "inc_b", "first_node": 3, "continued": [[2, 5]]}
    assert stages[1]["made_by"] == [{"incarnation_id": "inc_c", "first_node": 1}]


def test_a_step_that_has_ended_shows_its_whole_tree() -> None:
    whole = {"step": 0, "nodes": [{"tokens": 0}, {"tokens": 4, "text": "x = 1"}], "chosen": 0}
    steps = steps_of([("inc_a", {"step": 0, "nodes": [], "result": {"tree": whole}}), ("inc_a", {"step": 1} | _FIRST)])
    assert steps[0].document()["nodes"][1]["text"] == "x = 1"
    assert len(steps[1].document()["nodes"]) == 3
