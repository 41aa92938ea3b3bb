"""The search tree of one job: its result, its picture and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from ponder_worker.search.tree.delta_recorder import DeltaRecorder, Keep
from ponder_worker.search.tree.node import Node, NodeState, child_seed

Decode = Callable[[Sequence[int]], str]


class SearchTree:
    """Nodes with parent, state and score, addressed by (parent, ordinal). Folding all its deltas rebuilds the tree."""

    def __init__(self, root_seed: int, prompt: Sequence[int] = (), *, keep: Keep = Keep.NOTHING) -> None:
        root = Node(0, None, 0, root_seed, 0, 0, list(prompt), NodeState.FINISHED)
        self.nodes: list[Node] = [root]
        self.ended: str | None = None
        """Why the search was told to end early. It is recorded before it is acted on."""
        self.counts: dict[str, int] = {}
        """Counters that the next attempt continues, such as `recomputed_tokens`."""
        self.decisions: dict[str, Any] = {}
        """Decisions that rest on more than this tree, such as other jobs' results; recorded before they take effect."""
        self.refused: dict[tuple[int, int], str] = {}
        """Why a child (parent's index, ordinal) was never begun: "budget" or "settled". A refusal is final."""
        self._keep = keep
        self._children: dict[tuple[int, int], Node] = {}
        self._growing: dict[int, Node] = {}
        self._recorder = DeltaRecorder(keep)

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @property
    def growing(self) -> Collection[Node]:
        return self._growing.values()

    @property
    def num_tokens(self) -> int:
        """How many ids were sampled or forced, in all nodes together."""
        return sum(len(node.ids) for node in self.nodes if node.is_sampled)

    @property
    def num_judge_tokens(self) -> int:
        """How many of them are below prompts of their own, which judges answer."""
        return sum(len(node.ids) for node in self.nodes if node.is_sampled and node.prompt.is_prompt)

    def child(self, parent: Node, ordinal: int) -> Node | None:
        return self._children.get((parent.index, ordinal))

    def ids_to(self, node: Node) -> list[int]:
        """Returns the prompt's and all generated ids up to the end of this node."""
        ids: list[int] = []
        for step in (self.root, *node.path()):
            if step.is_prompt:
                ids = []
            ids += step.ids
        return ids

    def text_of(self, node: Node, decode: Decode) -> str:
        """Returns this node's part of its path's text, without a stop string."""
        if node.text is None:
            node.text = _without_end(self.spell(node, decode), node.stop_chars)
        return node.text

    def spell(self, node: Node, decode: Decode) -> str:
        """Returns this node's part of its path's text, a stop string included.

        A character whose bytes begin in one node and end in the next belongs to the next.
        """
        ids = self.ids_to(node)[len(node.prompt.ids) :]
        text = decode(ids)
        before = decode(ids[: len(ids) - len(node.ids)]).rstrip("�") if len(ids) > len(node.ids) else ""
        return text[len(before) :] if text.startswith(before) else decode(node.ids)

    def num_stop_chars_before(self, leaf: Node, decode: Decode) -> int:
        """Returns how many characters of the leaf's stop string are in the text of the nodes before it."""
        return max(0, leaf.stop_chars - len(self.spell(leaf, decode))) if leaf.stop_chars else 0

    def add(self, parent: Node, ordinal: int, cap: int) -> Node:
        start = parent.start + len(parent.ids)
        node = Node(len(self.nodes), parent, ordinal, child_seed(parent.seed, ordinal), start, cap)
        self.nodes.append(node)
        self._children[parent.index, ordinal] = node
        self._growing[node.index] = node
        self._recorder.change(node, "parent", "ordinal", "cap")
        return node

    def add_prompt(self, ordinal: int, ids: Sequence[int]) -> Node:
        """Adds a child of the root whose ids are a prompt of its own."""
        root = self.root
        node = Node(len(self.nodes), root, ordinal, child_seed(root.seed, ordinal), 0, 0, [*ids], NodeState.FINISHED)
        node.is_prompt = True
        self.nodes.append(node)
        self._children[root.index, ordinal] = node
        self._recorder.change(node, "ordinal")
        return node

    def extend(
        self,
        node: Node,
        ids: Sequence[int],
        logprobs: Sequence[float],
        top_logprobs: Sequence[Sequence[Sequence[float]]] = (),
    ) -> None:
        node.ids += ids
        for logprob in logprobs:  # one at a time: the sum must not depend on where it was interrupted
            node.logprob += logprob
        if self._keep >= Keep.LOGPROBS:
            node.logprobs += logprobs
        if self._keep >= Keep.TOP_LOGPROBS:
            node.top_logprobs += top_logprobs or [[]] * len(ids)

    def force(self, node: Node, ids: Sequence[int], *, drop: int = 0) -> None:
        """Drops the node's last `drop` ids and appends ids that were not sampled."""
        keep = len(node.ids) - drop
        del node.ids[keep:]
        del node.logprobs[keep:]
        del node.top_logprobs[keep:]
        self._recorder.truncate(node)
        node.forced += ((keep, len(ids)),)
        self._recorder.change(node, "forced")
        self.extend(node, ids, [0.0] * len(ids))

    def finish(self, node: Node, stop: str, spelled: str, *, stop_chars: int = 0) -> None:
        """Ends the node. spelled: its text, of which the last `stop_chars` characters are not part of the answer."""
        node.text, node.stop_chars = _without_end(spelled, stop_chars), stop_chars
        self._end(node, NodeState.FINISHED, stop)
        if stop_chars:
            self._recorder.change(node, "stop_chars")

    def cancel(self, node: Node, stop: str, text: str) -> None:
        node.text = text
        self._end(node, NodeState.CANCELLED, stop)

    def mark_speculative(self, node: Node) -> None:
        node.is_speculative = True
        self._recorder.change(node, "is_speculative")

    def prune(self, node: Node) -> None:
        """Marks a finished node that the strategy does not pursue."""
        if node.state is NodeState.FINISHED:
            node.state = NodeState.PRUNED
            self._recorder.change(node, "state")

    def set_score(self, node: Node, score: float) -> None:
        node.score = score
        self._recorder.change(node, "score")

    def set_confidence(self, node: Node, confidence: float | None) -> None:
        node.confidence = confidence
        self._recorder.change(node, "confidence")

    def set_verdict(self, node: Node, passed: bool | None, feedback: str) -> None:
        """Records what a verifier said. If it could not judge nothing is recorded, because another worker's may."""
        if passed is None:
            return
        node.passed, node.feedback = passed, feedback
        self._recorder.change(node, "passed", "feedback")

    def refuse(self, parent: Node, ordinal: int, why: str) -> None:
        self.refused[parent.index, ordinal] = why
        self._recorder.append("refused", [parent.index, ordinal, why])

    def decide(self, name: str, value: Any) -> None:
        self.decisions[name] = value
        self._recorder.replace("decisions", dict(self.decisions))

    def end(self, reason: str) -> None:
        self.ended = reason
        self._recorder.replace("ended", reason)

    def count(self, name: str, num: int) -> None:
        if num:
            self.counts[name] = self.counts.get(name, 0) + num
            self._recorder.replace("counts", dict(self.counts))

    def delta(self) -> dict[str, Any] | None:
        """Returns what has changed since the last delta: changed fields and new ids only; None if nothing has."""
        return self._recorder.take(self.nodes, self._growing)

    @classmethod
    def fold(cls, root_seed: int, deltas: Iterable[dict[str, Any]], *, keep: Keep = Keep.NOTHING) -> SearchTree:
        tree = cls(root_seed, keep=keep)
        for delta in deltas:
            for row in delta.get("nodes", ()):
                tree._apply(row)
            tree.ended = delta.get("ended", tree.ended)
            tree.counts.update(delta.get("counts", {}))
            tree.decisions.update(delta.get("decisions", {}))
            tree.refused.update({(parent, ordinal): why for parent, ordinal, why in delta.get("refused", ())})
        tree._recorder.mark_saved(tree.nodes)
        return tree

    def document(self, decode: Callable[[Node], str]) -> dict[str, Any]:
        """Returns the nodes as they are stored for good. The prompt's text is the request's and is not stored again."""
        return {"nodes": [node.as_document(decode(node) if node.is_sampled else "") for node in self.nodes]}

    def _end(self, node: Node, state: NodeState, stop: str) -> None:
        node.state, node.stop = state, stop
        self._growing.pop(node.index, None)
        self._recorder.change(node, "state", "stop", "text")  # so that a growing tree can be read without a tokenizer

    def _apply(self, row: dict[str, Any]) -> None:
        index = row["node"]
        if "prompt" in row:
            self.add_prompt(row["ordinal"], row["prompt"])
            return
        if index == len(self.nodes):
            self.add(self.nodes[row["parent"]], row["ordinal"], row["cap"])
        node = self.nodes[index]
        keep = row.get("keep", len(node.ids))
        node.ids[keep:] = row.get("ids", ())
        node.logprobs[keep:] = row.get("logprobs", ())
        node.top_logprobs[keep:] = row.get("top_logprobs", ())
        for name in ("logprob", "score", "confidence", "stop", "stop_chars", "is_speculative", "passed", "feedback"):
            if name in row:
                setattr(node, name, row[name])
        if "forced" in row:
            node.forced = tuple((first, num) for first, num in row["forced"])
        if "state" in row:
            node.state = NodeState(row["state"])
            self._growing.pop(index, None)


def _without_end(text: str, num_chars: int) -> str:
    return text[: max(0, len(text) - num_chars)]
