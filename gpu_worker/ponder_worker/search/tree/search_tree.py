"""The search tree: the result, the picture and the checkpoint of one job."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from ponder_worker.search.tree import seed
from ponder_worker.search.tree.delta_recorder import DeltaRecorder
from ponder_worker.search.tree.node import Node, NodeState


class SearchTree:
    """Children are addressed (parent, ordinal). Folding all deltas in order gives the tree again."""

    def __init__(self, root_seed: int, prompt: Sequence[int] = (), *, keep_logprobs: bool = False) -> None:
        root = Node(0, None, 0, root_seed, 0, 0, list(prompt), NodeState.FINISHED)
        self.nodes: list[Node] = [root]
        self.ended: str | None = None
        """Why the search was told to come to its end before its time; written down before it is acted on."""
        self.counts: dict[str, int] = {}
        """What the next attempt goes on counting from, such as `recomputed_tokens`."""
        self.decisions: dict[str, Any] = {}
        """What was decided by more than this tree, such as other jobs' results; written down before it is acted on."""
        self.refused: dict[tuple[int, int], str] = {}
        """Why a child (parent's index, ordinal) was not begun: "budget" or "settled". What is refused stays refused."""
        self._keep_logprobs = keep_logprobs
        self._children: dict[tuple[int, int], Node] = {}
        self._growing: dict[int, Node] = {}
        self._news = DeltaRecorder(keep_logprobs=keep_logprobs)

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @property
    def growing(self) -> Collection[Node]:
        return self._growing.values()

    @property
    def num_tokens(self) -> int:
        """Ids that sampling or forcing added to the tree."""
        return sum(len(node.ids) for node in self.nodes[1:])

    def child(self, parent: Node, ordinal: int) -> Node | None:
        return self._children.get((parent.index, ordinal))

    def ids_to(self, node: Node) -> list[int]:
        """Prompt and generated ids up to the end of this node."""
        ids = list(self.root.ids)
        for step in node.path():
            ids += step.ids
        return ids

    def add(self, parent: Node, ordinal: int, cap: int) -> Node:
        start = parent.start + len(parent.ids)
        node = Node(len(self.nodes), parent, ordinal, seed.of_child(parent.seed, ordinal), start, cap)
        self.nodes.append(node)
        self._children[parent.index, ordinal] = node
        self._growing[node.index] = node
        self._news.change(node, "parent", "ordinal", "cap")
        return node

    def extend(self, node: Node, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        node.ids += ids
        for logprob in logprobs:  # one by one, so that an interrupted sum is the same sum
            node.logprob += logprob
        if self._keep_logprobs:
            node.logprobs += logprobs

    def force(self, node: Node, ids: Sequence[int], *, drop: int = 0) -> None:
        """Puts ids at its end that nobody sampled, instead of the last `drop` ones."""
        keep = len(node.ids) - drop
        del node.ids[keep:]
        del node.logprobs[keep:]
        self._news.drop(node)
        node.forced += ((keep, len(ids)),)
        self._news.change(node, "forced")
        self.extend(node, ids, [0.0] * len(ids))

    def finish(self, node: Node, stop: str, text: str, *, stop_chars: int = 0) -> None:
        node.text, node.stop_chars = text, stop_chars
        self._end(node, NodeState.FINISHED, stop)
        if stop_chars:
            self._news.change(node, "stop_chars")

    def cancel(self, node: Node, stop: str, text: str) -> None:
        node.text = text
        self._end(node, NodeState.CANCELLED, stop)

    def mark_speculative(self, node: Node) -> None:
        node.is_speculative = True
        self._news.change(node, "is_speculative")

    def prune(self, node: Node) -> None:
        """A finished node that the strategy leaves."""
        if node.state is NodeState.FINISHED:
            node.state = NodeState.PRUNED
            self._news.change(node, "state")

    def set_score(self, node: Node, score: float) -> None:
        node.score = score
        self._news.change(node, "score")

    def set_verdict(self, node: Node, passed: bool | None, feedback: str) -> None:
        """Where nobody could judge nothing is written down: another worker may."""
        if passed is None:
            return
        node.passed, node.feedback = passed, feedback
        self._news.change(node, "passed", "feedback")

    def refuse(self, parent: Node, ordinal: int, why: str) -> None:
        self.refused[parent.index, ordinal] = why
        self._news.list("refused", [parent.index, ordinal, why])

    def decide(self, name: str, value: Any) -> None:
        self.decisions[name] = value
        self._news.tell("decisions", dict(self.decisions))

    def end(self, reason: str) -> None:
        self.ended = reason
        self._news.tell("ended", reason)

    def count(self, name: str, num: int) -> None:
        if num:
            self.counts[name] = self.counts.get(name, 0) + num
            self._news.tell("counts", dict(self.counts))

    def delta(self) -> dict[str, Any] | None:
        """What is new since the last one; None if nothing is. Only what changed, and only the new ids."""
        return self._news.take(self.nodes, self._growing)

    @classmethod
    def fold(cls, root_seed: int, deltas: Iterable[dict[str, Any]], *, keep_logprobs: bool = False) -> SearchTree:
        tree = cls(root_seed, keep_logprobs=keep_logprobs)
        for delta in deltas:
            for row in delta.get("nodes", ()):
                tree._take(row)
            tree.ended = delta.get("ended", tree.ended)
            tree.counts.update(delta.get("counts", {}))
            tree.decisions.update(delta.get("decisions", {}))
            tree.refused.update({(parent, ordinal): why for parent, ordinal, why in delta.get("refused", ())})
        tree._news.forget(tree.nodes)
        return tree

    def document(self, decode: Callable[[Node], str]) -> dict[str, Any]:
        """The nodes as they are kept for good. The prompt's ids and text are the request's and not kept again."""
        return {"nodes": [_entry(node, "" if node.parent is None else decode(node)) for node in self.nodes]}

    def _end(self, node: Node, state: NodeState, stop: str) -> None:
        node.state, node.stop = state, stop
        self._growing.pop(node.index, None)
        self._news.change(node, "state", "stop")

    def _take(self, row: dict[str, Any]) -> None:
        index = row["node"]
        if index == len(self.nodes):
            self.add(self.nodes[row["parent"]], row["ordinal"], row["cap"])
        node = self.nodes[index]
        keep = row.get("keep", len(node.ids))
        node.ids[keep:] = row.get("ids", ())
        node.logprobs[keep:] = row.get("logprobs", ())
        for name in ("logprob", "score", "stop", "stop_chars", "is_speculative", "passed", "feedback"):
            if name in row:
                setattr(node, name, row[name])
        if "forced" in row:
            node.forced = tuple((first, num) for first, num in row["forced"])
        if "state" in row:
            node.state = NodeState(row["state"])
            self._growing.pop(index, None)


def _entry(node: Node, text: str) -> dict[str, Any]:
    is_root = node.parent is None
    entry = {
        "parent": -1 if node.parent is None else node.parent.index,
        "ordinal": node.ordinal,
        "text": text,
        "ids": [] if is_root else node.ids,
        "tokens": 0 if is_root else len(node.ids),
        "state": node.state.value,
        "stop": node.stop,
        "logprob": None if is_root else node.logprob,
        "score": node.score,
        "speculative": node.is_speculative,
    }
    if node.forced:
        entry["forced"] = node.forced
    if node.passed is not None:
        entry |= {"passed": node.passed, "feedback": node.feedback}
    return entry
