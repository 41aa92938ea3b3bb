"""Records what has changed in a tree since it was last saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

from ponder_worker.search.tree.node import Node


class Keep(IntEnum):
    """The details of each id that a tree keeps beside the id itself. Each level includes those before it."""

    NOTHING = 0
    LOGPROBS = 1
    TOP_LOGPROBS = 2


class DeltaRecorder:
    """Collects one delta: only the changed fields and new ids of each node, and only the new facts of the tree."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._num_saved: dict[int, int] = {}  # ids of each node that deltas already hold
        self._changed: dict[int, set[str]] = {}
        self._truncated: set[int] = set()
        self._facts: dict[str, Any] = {}

    def change(self, node: Node, *fields: str) -> None:
        self._changed.setdefault(node.index, set()).update(fields)

    def truncate(self, node: Node) -> None:
        """Records that ids at the node's end are gone, of which deltas may hold some."""
        num_saved = self._num_saved.get(node.index, 0)
        if len(node.ids) < num_saved:
            self._num_saved[node.index] = len(node.ids)
            self._truncated.add(node.index)

    def replace(self, name: str, fact: Any) -> None:
        """Records a fact of the tree that replaces the one of this name."""
        self._facts[name] = fact

    def append(self, name: str, fact: Any) -> None:
        """Records one more fact of this name."""
        self._facts.setdefault(name, []).append(fact)

    def take(self, nodes: Sequence[Node], growing: Iterable[int]) -> dict[str, Any] | None:
        """Returns the delta and begins the next one; None if nothing has changed."""
        # The root's ids are never changed, but the first delta must hold them.
        first = {0} if self._num_saved.get(0, 0) < len(nodes[0].ids) else set()
        indices = sorted(first | self._changed.keys() | self._truncated | set(growing))
        rows = [row for index in indices if (row := self._row(nodes[index])) is not None]
        if not rows and not self._facts:
            return None
        delta: dict[str, Any] = {"nodes": rows} | self._facts
        self._facts, self._changed, self._truncated = {}, {}, set()
        return delta

    def mark_saved(self, nodes: Sequence[Node]) -> None:
        """Takes everything in these nodes as saved."""
        self._num_saved = {node.index: len(node.ids) for node in nodes}
        self._facts, self._changed, self._truncated = {}, {}, set()

    def _row(self, node: Node) -> dict[str, Any] | None:
        row: dict[str, Any] = {"node": node.index}
        for name in sorted(self._changed.get(node.index, ())):
            row[name] = getattr(node, name) if name != "parent" else node.parent.index if node.parent else -1
        num_saved = self._num_saved.get(node.index, 0)
        if node.index in self._truncated:
            row["keep"] = num_saved
        if node.is_prompt and num_saved < len(node.ids):
            # Under another name than sampled ids, which whoever counts a job's tokens goes by.
            row["prompt"] = node.ids
            self._num_saved[node.index] = len(node.ids)
        elif num_saved < len(node.ids):
            row["ids"] = node.ids[num_saved:]
            if node.parent is not None:
                row["logprob"] = node.logprob
            if self._keep >= Keep.LOGPROBS:
                row["logprobs"] = node.logprobs[num_saved:]
            if self._keep >= Keep.TOP_LOGPROBS:
                row["top_logprobs"] = node.top_logprobs[num_saved:]
            self._num_saved[node.index] = len(node.ids)
        return row if len(row) > 1 else None
