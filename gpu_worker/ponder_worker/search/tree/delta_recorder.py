"""What a tree has to tell since it was last saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ponder_worker.search.tree.node import Node


class DeltaRecorder:
    """Collects one delta: of each node only what changed and only the new ids, of the tree what it wrote down."""

    def __init__(self, *, keep_logprobs: bool) -> None:
        self._keep_logprobs = keep_logprobs
        self._saved: dict[int, int] = {}  # ids of each node that a delta has told
        self._changed: dict[int, set[str]] = {}
        self._dropped: set[int] = set()
        self._facts: dict[str, Any] = {}

    def change(self, node: Node, *names: str) -> None:
        self._changed.setdefault(node.index, set()).update(names)

    def drop(self, node: Node) -> None:
        """Ids at its end are gone; some may have been told already."""
        told = self._saved.get(node.index, 0)
        if len(node.ids) < told:
            self._saved[node.index] = len(node.ids)
            self._dropped.add(node.index)

    def tell(self, name: str, fact: Any) -> None:
        """The newest is what counts."""
        self._facts[name] = fact

    def list(self, name: str, fact: Any) -> None:
        """All of them count."""
        self._facts.setdefault(name, []).append(fact)

    def take(self, nodes: Sequence[Node], growing: Iterable[int]) -> dict[str, Any] | None:
        """The delta; None if nothing is new."""
        # The root's ids are news once.
        first = {0} if self._saved.get(0, 0) < len(nodes[0].ids) else set()
        indices = sorted(first | self._changed.keys() | self._dropped | set(growing))
        rows = [row for index in indices if (row := self._row(nodes[index])) is not None]
        if not rows and not self._facts:
            return None
        delta: dict[str, Any] = {"nodes": rows} | self._facts
        self._facts, self._changed, self._dropped = {}, {}, set()
        return delta

    def forget(self, nodes: Sequence[Node]) -> None:
        """All of this has been saved."""
        self._saved = {node.index: len(node.ids) for node in nodes}
        self._facts, self._changed, self._dropped = {}, {}, set()

    def _row(self, node: Node) -> dict[str, Any] | None:
        row: dict[str, Any] = {"node": node.index}
        for name in sorted(self._changed.get(node.index, ())):
            row[name] = getattr(node, name) if name != "parent" else node.parent.index if node.parent else -1
        told = self._saved.get(node.index, 0)
        if node.index in self._dropped:
            row["keep"] = told
        if told < len(node.ids):
            row["ids"] = node.ids[told:]
            if node.parent is not None:
                row["logprob"] = node.logprob
            if self._keep_logprobs:
                row["logprobs"] = node.logprobs[told:]
            self._saved[node.index] = len(node.ids)
        return row if len(row) > 1 else None
