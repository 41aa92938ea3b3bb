"""A finished leaf with its answer and score."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ponder_worker.search.tree.node import Node


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible answer.

    text: all of the model's last turn. thought, said: the thought in it, without its marks, and the text without the
    thought; a turn without a thought has only the latter.
    is_complete: whether the model ended the text itself. A text that was cut off only wins if none is complete.
    """

    node: Node
    text: str
    answer: str | None
    is_complete: bool
    score: float | None = None
    thought: str | None = None
    reply: str | None = None

    @property
    def said(self) -> str:
        return self.text if self.reply is None else self.reply

    @property
    def confidence(self) -> float | None:
        return self.node.confidence

    def scored(self, score: float | None) -> Candidate:
        return replace(self, score=score)
