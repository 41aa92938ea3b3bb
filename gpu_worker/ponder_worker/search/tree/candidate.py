"""A finished leaf with its answer and score."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ponder_worker.search.tree.node import Node


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible answer.

    is_complete: whether the model ended the text itself. A text that was cut off only wins if none is complete.
    """

    node: Node
    text: str
    answer: str | None
    is_complete: bool
    score: float | None = None

    def scored(self, score: float | None) -> Candidate:
        return replace(self, score=score)
