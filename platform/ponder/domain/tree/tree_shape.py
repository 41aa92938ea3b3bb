"""Shape of a stored tree: the way to its answer, the leaves that say the same, and the titles of a job's trees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ponder.domain.storable import JsonObject

_MEASURES = ("agreement", "probability")
_JUDGES = {"select": "chosen", "accept": "judged", "verify": "verified"}


def children_of(nodes: Sequence[JsonObject]) -> dict[int, list[int]]:
    """Returns the indices of each node's children, in the order in which they were begun."""
    children: dict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes[1:], start=1):
        children[int(node.get("parent", 0))].append(index)
    return children


def best_path(document: JsonObject) -> set[int]:
    """Returns the chosen candidate's node and all nodes above it except the root; none if nothing is chosen."""
    chosen, path = document.get("chosen"), set[int]()
    index = 0 if chosen is None else int(document["candidates"][chosen]["node"])
    while index > 0 and index not in path:
        path.add(index)
        index = int(document["nodes"][index].get("parent", 0))
    return path


def twins(nodes: Sequence[JsonObject], siblings: Sequence[int], important: Collection[int]) -> dict[int, int]:
    """Returns for each sibling the one that stands for it: itself, or one with the same text.

    Those that are important, such as nodes with children, always stand for themselves, and come first. So do nodes
    whose text is not known yet.
    """
    standing: dict[int, int] = {}
    by_text: dict[str, int] = {}
    for child in sorted(siblings, key=lambda child: (child not in important, child)):
        text = nodes[child].get("text")
        twin = child if text is None else by_text.setdefault(str(text).strip(), child)
        standing[child] = child if child in important else twin
    return standing


def titled_trees(strategy: str, document: JsonObject) -> list[tuple[str, JsonObject]]:
    """Returns the trees of a job with their titles: one, or one for each of several steps that has begun."""
    if "stages" not in document:
        return [(strategy, document)]
    trees = []
    for number, stage in enumerate(document["stages"]):
        # Only the way to the job's answer is marked.
        is_chosen = number == document["answered_by"]
        decided = decision(stage.get("decisions") or {})
        title = f"stage {stage.get('stage', number)}: {_named(stage)}{decided and f', {decided}'}"
        trees.append((title, stage if is_chosen else {**stage, "chosen": None}))
    return trees


def _named(stage: Mapping[str, Any]) -> str:
    if "strategy" in stage:
        return f"{stage['strategy']} on {stage['model']}"
    return f"{_JUDGES.get(stage.get('task', ''), 'judged')} by {stage['model']}"


def decision(decisions: Mapping[str, Any]) -> str:
    """Returns the words for what was decided in a step, and none if nothing was."""
    route = decisions.get("route") or {}
    if route.get("skipped"):
        if "confidence" not in route:
            return f"skipped: too seldom accepted ({route['chance']:.0%})"
        begun = f"ended after its first tokens, confidence {route['confidence']:.2f}"
        return f"{begun}: too seldom accepted ({route['chance']:.0%})"
    told, verdict = decisions.get("accept"), decisions.get("verdict")
    if told is None and verdict is not None:
        return f"votes: {verdict['votes'][0]} correct, {verdict['votes'][1]} wrong"
    if told is None:
        return ""
    if "error" in told:
        return f"not accepted: {told['error']}"
    said = "accepted" if told["accepted"] else "not accepted"
    measure = next((f"{name} {told[name]:.2f}" for name in _MEASURES if name in told), told["by"])
    chance = f", which is right with a chance of {told['chance']:.2f}" if "chance" in told else ""
    least = f" (needed: {told['threshold']:g})" if "threshold" in told else ""
    source = f", calibrated on {told['calibrated_on']}" if "calibrated_on" in told else ""
    return f"{said} by {measure}{chance}{least}{source}"
