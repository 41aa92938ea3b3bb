"""The search tree: the result, the picture and the checkpoint of one job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ponder_worker.search import seed
from ponder_worker.search.node import Node, NodeState


class SearchTree:
    """Children are addressed (parent, ordinal). Folding all deltas in order gives the tree again."""

    def __init__(self, root_seed: int, prompt: Sequence[int] = (), *, keep_logprobs: bool = False) -> None:
        root = Node(0, None, 0, root_seed, 0, 0, list(prompt), NodeState.FINISHED)
        self.nodes: list[Node] = [root]
        self.ended: str | None = None
        """Why the search was told to come to its end before its time; written down before it is acted on."""
        self.counts: dict[str, int] = {}
        """What the next attempt goes on counting from, such as `recomputed_tokens`."""
        self.refused: set[tuple[int, int]] = set()
        """(parent's index, ordinal) of children that the budget had no room for: what is refused once stays refused."""
        self._keep_logprobs = keep_logprobs
        self._children: dict[tuple[int, int], Node] = {}
        self._saved = [0]  # ids of each node that a delta has told
        self._changed: dict[int, set[str]] = {}
        self._growing: dict[int, Node] = {}
        self._news: dict[str, Any] = {}

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @property
    def growing(self) -> Iterable[Node]:
        return self._growing.values()

    @property
    def num_tokens(self) -> int:
        """Ids that sampling added to the tree."""
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
        self._saved.append(0)
        self._children[parent.index, ordinal] = node
        self._growing[node.index] = node
        self._change(node, "parent", "ordinal", "cap")
        return node

    def extend(self, node: Node, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        node.ids += ids
        for logprob in logprobs:  # one by one, so that an interrupted sum is the same sum
            node.logprob += logprob
        if self._keep_logprobs:
            node.logprobs += logprobs

    def finish(self, node: Node, stop: str, text: str, *, stop_chars: int = 0) -> None:
        node.text, node.stop_chars = text, stop_chars
        self._end(node, NodeState.FINISHED, stop)
        if stop_chars:
            self._change(node, "stop_chars")

    def cancel(self, node: Node, stop: str, text: str) -> None:
        node.text = text
        self._end(node, NodeState.CANCELLED, stop)

    def prune(self, node: Node) -> None:
        """A finished node that the strategy leaves."""
        if node.state is NodeState.FINISHED:
            node.state = NodeState.PRUNED
            self._change(node, "state")

    def set_score(self, node: Node, score: float) -> None:
        node.score = score
        self._change(node, "score")

    def refuse(self, parent: Node, ordinal: int) -> None:
        self.refused.add((parent.index, ordinal))
        self._news.setdefault("refused", []).append([parent.index, ordinal])

    def end(self, reason: str) -> None:
        self.ended = self._news["ended"] = reason

    def count(self, name: str, num: int) -> None:
        if num:
            self.counts[name] = self.counts.get(name, 0) + num
            self._news["counts"] = self.counts

    def delta(self) -> dict[str, Any] | None:
        """What is new since the last one; None if nothing is. Only what changed, and only the new ids."""
        rows = [row for index in self._indices_with_news() if (row := self._row(self.nodes[index])) is not None]
        if not rows and not self._news:
            return None
        delta: dict[str, Any] = {"nodes": rows} | self._news
        if "counts" in delta:
            delta["counts"] = dict(self.counts)
        self._news = {}
        self._changed = {}
        return delta

    @classmethod
    def fold(cls, root_seed: int, deltas: Iterable[dict[str, Any]], *, keep_logprobs: bool = False) -> SearchTree:
        tree = cls(root_seed, keep_logprobs=keep_logprobs)
        for delta in deltas:
            for row in delta.get("nodes", ()):
                tree._take(row)
            tree.ended = delta.get("ended", tree.ended)
            tree.counts.update(delta.get("counts", {}))
            tree.refused.update((parent, ordinal) for parent, ordinal in delta.get("refused", ()))
        tree._saved = [len(node.ids) for node in tree.nodes]
        tree._changed, tree._news = {}, {}
        return tree

    def document(self, decode: Callable[[Node], str]) -> dict[str, Any]:
        """The nodes as they are kept for good. The prompt's ids and text are the request's and not kept again."""
        return {
            "nodes": [
                {
                    "parent": -1 if node.parent is None else node.parent.index,
                    "ordinal": node.ordinal,
                    "text": "" if node.parent is None else decode(node),
                    "ids": [] if node.parent is None else node.ids,
                    "state": node.state.value,
                    "stop": node.stop,
                    "logprob": None if node.parent is None else node.logprob,
                    "score": node.score,
                }
                for node in self.nodes
            ]
        }

    def _end(self, node: Node, state: NodeState, stop: str) -> None:
        node.state, node.stop = state, stop
        self._growing.pop(node.index, None)
        self._change(node, "state", "stop")

    def _change(self, node: Node, *names: str) -> None:
        self._changed.setdefault(node.index, set()).update(names)

    def _indices_with_news(self) -> Iterator[int]:
        # The root's ids are news once.
        first = {0} if self._saved[0] < len(self.nodes[0].ids) else set()
        yield from sorted(first | self._changed.keys() | self._growing.keys())

    def _row(self, node: Node) -> dict[str, Any] | None:
        row: dict[str, Any] = {"node": node.index}
        for name in sorted(self._changed.get(node.index, ())):
            row[name] = getattr(node, name) if name != "parent" else node.parent.index if node.parent else -1
        saved = self._saved[node.index]
        if saved < len(node.ids):
            row["ids"] = node.ids[saved:]
            if node.parent is not None:
                row["logprob"] = node.logprob
            if self._keep_logprobs:
                row["logprobs"] = node.logprobs[saved:]
            self._saved[node.index] = len(node.ids)
        return row if len(row) > 1 else None

    def _take(self, row: dict[str, Any]) -> None:
        index = row["node"]
        if index == len(self.nodes):
            self.add(self.nodes[row["parent"]], row["ordinal"], row["cap"])
        node = self.nodes[index]
        node.ids += row.get("ids", ())
        node.logprobs += row.get("logprobs", ())
        node.logprob = row.get("logprob", node.logprob)
        node.score = row.get("score", node.score)
        node.stop = row.get("stop", node.stop)
        node.stop_chars = row.get("stop_chars", node.stop_chars)
        if "state" in row:
            node.state = NodeState(row["state"])
            self._growing.pop(index, None)
