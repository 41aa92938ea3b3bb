"""One node of a search tree: a reasoning step, or one whole sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class NodeState(StrEnum):
    GROWING = "growing"
    FINISHED = "finished"
    PRUNED = "pruned"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Node:
    """What one `generate` made: a step or a whole sample. Only its tree changes it.

    start: tokens before it on its path, prompt included. cap: the most tokens it may ever have.
    stop: "stop" (the model ended it), "separator", "length" (its limit), "budget" (the job's), "forced" (nobody sampled
    it), or why it was cut off.
    logprob: of the ids sampled for it so far, of the model's own distribution; logprobs: one by one, if the tree keeps
    them, 0 where an id was forced.
    text: set when it ends, without a stop string; score: of this step alone.
    """

    index: int
    parent: Node | None
    ordinal: int
    seed: int
    start: int
    cap: int
    ids: list[int] = field(default_factory=list)
    state: NodeState = NodeState.GROWING
    stop: str | None = None
    logprob: float = 0.0
    logprobs: list[float] = field(default_factory=list)
    score: float | None = None
    text: str | None = None
    stop_chars: int = 0
    """Characters at the end of its path's text, from a stop string on, that are not part of the answer."""
    forced: tuple[tuple[int, int], ...] = ()
    """(first, number) of each run of its ids that was put there instead of being sampled."""
    is_speculative: bool = False
    """Begun before it was known that it would be wanted."""
    passed: bool | None = None
    """What the verifier said about the candidate that ends here, if the search asked, and what it said was wrong."""
    feedback: str | None = None

    @property
    def address(self) -> tuple[int, ...]:
        return tuple(node.ordinal for node in self.path())

    def path(self) -> list[Node]:
        """From the root's child down to this node; empty for the root."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes
