"""One node of a search tree, and the seed of its sampling noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_MASK = (1 << 64) - 1


class NodeState(StrEnum):
    GROWING = "growing"
    FINISHED = "finished"
    PRUNED = "pruned"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Node:
    """One reasoning step or one whole sample: what one `generate` call made. Only its tree changes it.

    A child of the root may be a prompt of its own, such as a judge's question: the nodes below it continue that prompt.
    start: tokens before it on its path, from its prompt's first on. cap: the most tokens it may have.
    stop: "stop" (the model ended it), "separator", "length" (its own limit), "budget" (the job's limit), "forced" and
    "inserted" (its ids were put there rather than sampled, as the user's turn or in the model's own), "confidence" (its
    own was too low), or another reason to cut it off.
    logprob: sum over its sampled ids, under the model's own distribution. logprobs: one for each id, if the tree keeps
    them; 0 where an id was forced. top_logprobs: the likeliest (id, log-probability) there, if the tree keeps them.
    text: set when it ends, without a stop string. score: the reward model's score of this step alone.
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
    top_logprobs: list[Sequence[Sequence[float]]] = field(default_factory=list)
    score: float | None = None
    confidence: float | None = None
    """The lowest geometric mean probability of some tokens in a row; None where nobody asked."""
    text: str | None = None
    stop_chars: int = 0
    """Characters at the end of its path's text, from a stop string on, that are not part of the answer."""
    forced: tuple[tuple[int, int], ...] = ()
    """(first, number) for each run of ids that was forced instead of sampled."""
    is_prompt: bool = False
    """Whether its ids are a prompt of their own, which is no part of the root's conversation."""
    is_speculative: bool = False
    """Whether it was begun before it was known to be wanted."""
    passed: bool | None = None
    """The verdict on the candidate that ends here; None if it was not asked."""
    feedback: str | None = None
    """The verifier's words for what was wrong."""

    @property
    def address(self) -> tuple[int, ...]:
        return tuple(node.ordinal for node in self.path())

    def path(self) -> list[Node]:
        """Returns the nodes from the root's child down to this one; none for the root."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    @property
    def prompt(self) -> Node:
        """The prompt that it continues: the root, or a node below it that is a prompt of its own."""
        node = self
        while node.parent is not None and not node.is_prompt:
            node = node.parent
        return node

    @property
    def is_sampled(self) -> bool:
        """Whether its ids were generated, and count as such."""
        return self.parent is not None and not self.is_prompt

    def as_document(self, text: str) -> dict[str, Any]:
        """Returns the node as it is stored. A prompt's ids follow from the request and are not stored again."""
        entry = {
            "parent": -1 if self.parent is None else self.parent.index,
            "ordinal": self.ordinal,
            "text": text,
            "ids": self.ids if self.is_sampled else [],
            "tokens": len(self.ids) if self.is_sampled else 0,
            "state": self.state.value,
            "stop": self.stop,
            "logprob": self.logprob if self.is_sampled else None,
            "score": self.score,
            "speculative": self.is_speculative,
        }
        if self.is_prompt:
            entry["prompt"] = True
        if self.forced:
            entry["forced"] = self.forced
        if self.confidence is not None:
            entry["confidence"] = self.confidence
        if self.passed is not None:
            entry |= {"passed": self.passed, "feedback": self.feedback}
        return entry


def root_seed(job_id: int, seed: int | None) -> int:
    """Returns the 64-bit seed of a job's root: made from the seed that the request names, or else from the job's id."""
    return _mix(seed & _MASK) if seed is not None else _mix(_mix(job_id & _MASK) ^ 0x5851F42D4C957F2D)


def child_seed(parent_seed: int, ordinal: int) -> int:
    """Returns the seed of the child (parent, ordinal). It depends on the job's seed and the child's address alone."""
    return _mix(parent_seed ^ _mix(ordinal + 1))


def _mix(x: int) -> int:
    """Computes splitmix64: https://prng.di.unimi.it/splitmix64.c"""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
