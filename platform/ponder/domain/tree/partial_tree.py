"""Search trees as their saved deltas tell them, without the texts of nodes that have not ended, and the parts of them
that each incarnation made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ponder.domain.storable import JsonObject

_KEPT = ("text", "state", "stop", "score", "confidence", "passed", "feedback", "forced", "logprob")
_SAME_UNTIL_TOLD: JsonObject = {"text": None, "state": "growing", "stop": None, "score": None}


@dataclass(frozen=True, slots=True)
class Part:
    """The nodes that one incarnation began, in a row from `first_node` on, and the tokens at which it continued others.

    continued: {node: number of its tokens that were there before}.
    """

    incarnation_id: str
    first_node: int
    continued: dict[int, int] = field(default_factory=dict)

    def document(self) -> JsonObject:
        document: JsonObject = {"incarnation_id": self.incarnation_id, "first_node": self.first_node}
        if self.continued:
            document["continued"] = [[node, at] for node, at in sorted(self.continued.items())]
        return document


class PartialTree:
    """A tree of one step that grows by deltas. Its document is that of a stored tree as far as it is known."""

    def __init__(self) -> None:
        self.nodes: list[JsonObject] = []
        self.parts: list[Part] = []
        self.decisions: JsonObject = {}
        self.result: JsonObject | None = None
        """The whole tree, from the delta that ended the step."""

    def add(self, incarnation_id: str, delta: JsonObject) -> None:
        if not self.parts or self.parts[-1].incarnation_id != incarnation_id:
            self.parts.append(Part(incarnation_id, max(1, len(self.nodes))))
        for row in delta.get("nodes", ()):
            self._apply(row)
        self.decisions |= delta.get("decisions", {})
        if "result" in delta:
            self.end(incarnation_id, delta["result"]["tree"])

    def end(self, incarnation_id: str, tree: JsonObject) -> None:
        """Takes the whole tree, whose last tokens an incarnation made without saving a delta."""
        if not self.parts or self.parts[-1].incarnation_id != incarnation_id:
            self.parts.append(Part(incarnation_id, max(1, len(self.nodes))))
        for index, node in enumerate(tree.get("nodes", ())[: len(self.nodes)]):
            self._continue(index, node.get("tokens", 0))
        self.result = tree

    def document(self) -> JsonObject:
        parts = {"made_by": made_by(self.parts)}
        if self.result is not None:
            return self.result | parts
        return {"nodes": self.nodes, "candidates": [], "chosen": None, "decisions": self.decisions} | parts

    def _apply(self, row: JsonObject) -> None:
        index = row["node"]
        while index >= len(self.nodes):
            self.nodes.append(_begun(row))
        node = self.nodes[index]
        if index > 0 and ("ids" in row or "keep" in row):
            num_tokens = (int(row["keep"]) if "keep" in row else node["tokens"]) + len(row.get("ids", ()))
            self._continue(index, num_tokens)
            node["tokens"] = num_tokens
        for name in _KEPT:
            if name in row:
                node[name] = row[name]
        if row.get("is_speculative"):
            node["speculative"] = True

    def _continue(self, index: int, num_tokens: int) -> None:
        """Notes that the last part makes a node longer which another one has begun."""
        part, before = self.parts[-1], self.nodes[index]["tokens"]
        if index < part.first_node and index > 0 and num_tokens > before:
            part.continued.setdefault(index, before)


def _begun(row: JsonObject) -> JsonObject:
    if row["node"] == 0:
        return {"parent": -1, "ordinal": 0, "tokens": 0} | _SAME_UNTIL_TOLD | {"text": "", "state": "finished"}
    node: dict[str, Any] = {"parent": row.get("parent", 0), "ordinal": row.get("ordinal", 0), "tokens": 0}
    node |= _SAME_UNTIL_TOLD
    return node | {"prompt": True, "text": "", "state": "finished"} if "prompt" in row else node


def made_by(parts: Iterable[Part]) -> list[JsonObject]:
    return [part.document() for part in parts]


def steps_of(saved: Iterable[tuple[str, JsonObject]]) -> dict[int, PartialTree]:
    """Returns the trees of a job's steps by number, from its deltas, oldest first, each with its incarnation.

    A job with a single step has the number 0.
    """
    steps: dict[int, PartialTree] = {}
    for incarnation_id, delta in saved:
        number = int(delta["step"] if "step" in delta else delta.get("stage", 0))
        steps.setdefault(number, PartialTree()).add(incarnation_id, delta)
    return steps


def with_makers(tree: JsonObject, saved: Sequence[tuple[str, JsonObject]], incarnation_id: str) -> JsonObject:
    """Returns a job's whole tree, which an incarnation has just ended, with who made which part of it.

    saved: the job's deltas, oldest first, each with its incarnation.
    """
    steps = steps_of(saved)
    if "stages" not in tree:
        return _ended(steps.get(0), tree, incarnation_id)
    stages = []
    for place, stage in enumerate(tree["stages"]):
        step = steps.get(stage.get("step", place))
        if step is not None and step.result is not None:
            stages.append(stage | {"made_by": made_by(step.parts)})
        else:
            stages.append(_ended(step, stage, incarnation_id))
    return tree | {"stages": stages}


def _ended(step: PartialTree | None, tree: JsonObject, incarnation_id: str) -> JsonObject:
    step = step or PartialTree()
    step.end(incarnation_id, tree)
    return tree | {"made_by": made_by(step.parts)}
