"""The growing nodes of one tree and their streams: begun, gone on with, brought to their answer, cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ponder_worker.search.expansion.speculation import Speculation
from ponder_worker.search.expansion.thought import Thought
from ponder_worker.search.port import End, Engine, Order, Stream
from ponder_worker.search.tree import seed
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a node grows: until the `separator`, which it keeps, or the model's own end.

    A thought of `thinking_tokens` in all is closed by force. Where the model would end it before, that end is replaced
    by `wait_ids`, `num_waits` times.
    """

    separator: str | None = None
    thought: Thought | None = None
    thinking_tokens: int | None = None
    wait_ids: tuple[int, ...] = ()
    num_waits: int = 0


@dataclass(slots=True)
class _Growing:
    manner: GenerationOptions
    done: Callable[[Node, End], None]
    max_tokens: int
    may_wait: bool
    stream: Stream


class Streams:
    """How a node goes on follows from its ids: a half-grown one of a former attempt goes on as if never stopped."""

    def __init__(self, tree: SearchTree, engine: Engine, speculation: Speculation) -> None:
        self._tree = tree
        self._engine = engine
        self._speculation = speculation
        self._growing: dict[int, _Growing] = {}
        self._former = [len(node.ids) for node in tree.nodes]

    def start(self, node: Node, manner: GenerationOptions, done: Callable[[Node, End], None]) -> None:
        """`done` is called once, when the node has all its ids in the tree; not if it is cut off."""
        limit = self._limit(node, manner)
        if limit is not None and limit <= len(node.ids):
            assert manner.thought is not None
            self._tree.force(node, manner.thought.closing_ids)
            limit = None
        may_wait = limit is not None and len(node.forced) < manner.num_waits
        separator, max_tokens = manner.separator, node.cap if limit is None else limit
        if may_wait and manner.thought is not None and manner.thought.close:
            separator = manner.thought.close
        ids, turn = self._tree.ids_to(node), _turn_start(node)
        order = Order(ids, node.start, turn, max_tokens, node.seed, separator, self._num_former(node))
        self._begin(node, order, partial(_Growing, manner, done, max_tokens, may_wait))

    def order_below(self, leaf: Node, manner: GenerationOptions, cap: int, ordinal: int) -> Order | None:
        """Of a child that may be asked for; None where it begins in a thought, whose end is not its own."""
        ids, turn = self._tree.ids_to(leaf), _turn_start(leaf)
        if manner.thought is not None and manner.thought.measure(self._tree.root.ids, ids[turn:])[1]:
            return None
        own = seed.of_child(leaf.seed, ordinal)
        return Order(ids, len(ids), turn, cap, own, manner.separator, self._num_former(leaf))

    def length(self, node: Node) -> int:
        growing = self._growing.get(node.index)
        return len(node.ids) if growing is None else len(growing.stream.tokens) - node.start

    def cut_off(self, node: Node) -> None:
        """What it has made so far is in the tree; it makes no more."""
        self.sync(node)
        growing = self._growing.pop(node.index, None)
        if growing is not None:
            self._engine.cancel(growing.stream)

    def close(self) -> None:
        """Gives up everything that runs and writes nothing down."""
        for growing in self._growing.values():
            self._engine.cancel(growing.stream)
        self._growing.clear()

    def sync(self, node: Node) -> None:
        """Moves what its stream has made so far into the tree."""
        growing = self._growing.get(node.index)
        if growing is None:
            return
        stream = growing.stream
        new = stream.tokens[node.start + len(node.ids) :]
        if new:
            self._tree.extend(node, new, stream.logprobs[len(stream.logprobs) - len(new) :])

    def num_thinking_tokens(self, thought: Thought) -> int:
        """Ids of all nodes that stand in thoughts, the marks around them not counted."""
        prompt = self._tree.root.ids
        num = 0
        for node in self._tree.nodes[1:]:
            if node.stop != "forced":
                before = self._turn_before(node)
                num += thought.measure(prompt, before + node.ids)[0] - thought.measure(prompt, before)[0]
        return num

    def sync_all(self) -> None:
        for node in self._tree.growing:
            self.sync(node)

    def _begin(self, node: Node, order: Order, growing: Callable[[Stream], _Growing]) -> None:
        done = partial(self._end, node)
        guess = self._speculation.take(order, done)
        if guess is None:
            self._growing[node.index] = growing(self._engine.generate(order, done))
            return
        stream, end = guess
        self._tree.mark_speculative(node)
        self._growing[node.index] = growing(stream)
        if end is not None:
            self._end(node, end)

    def _end(self, node: Node, end: End) -> None:
        self.sync(node)
        growing = self._growing.pop(node.index)
        manner = growing.manner
        at_its_limit = end.reason == "length" and growing.max_tokens < node.cap
        if at_its_limit or (growing.may_wait and self._goes_on_thinking(node, manner, end, growing.max_tokens)):
            self.start(node, manner, growing.done)
        else:
            growing.done(node, end)

    def _limit(self, node: Node, manner: GenerationOptions) -> int | None:
        """Tokens of the node at which its thought must be closed; None if none is open, or none could be closed."""
        thought = manner.thought
        if thought is None:
            return None
        before = self._turn_before(node)
        num, is_open = thought.measure(self._tree.root.ids, before + node.ids)
        latest = thought.latest_end(len(before) + node.cap)
        if not is_open or latest is None:
            return None
        limit = latest - len(before)
        if manner.thinking_tokens is not None:
            limit = min(limit, len(node.ids) + manner.thinking_tokens - num)
        limit = max(len(node.ids), limit)
        return limit if limit + len(thought.closing_ids) < node.cap else None

    def _goes_on_thinking(self, node: Node, manner: GenerationOptions, end: End, limit: int) -> bool:
        """Replaces the end of a thought by the wait if the limit leaves room; False where the node itself has ended."""
        thought = manner.thought
        assert thought is not None
        if end.stop_chars or end.reason != ("separator" if thought.close else "stop"):
            return False
        drop = len(thought.close_ids) or 1
        has_room = len(node.ids) - drop + len(manner.wait_ids) <= limit
        if has_room:
            self._tree.force(node, manner.wait_ids, drop=drop)
        return has_room or bool(thought.close)

    def _turn_before(self, node: Node) -> list[int]:
        """Ids of the model's turn before this node."""
        return self._tree.ids_to(node)[_turn_start(node) : node.start]

    def _num_former(self, node: Node) -> int:
        """Tokens at the front of its path that this attempt did not make."""
        made = sum(self._former[step.index] for step in node.path() if step.index < len(self._former))
        return len(self._tree.root.ids) + made


def _turn_start(node: Node) -> int:
    """Tokens before the model's turn that this node is of; a turn begins after what a user was made to say."""
    before = node.parent
    assert before is not None
    while before.parent is not None and before.stop != "forced":
        before = before.parent
    return before.start + len(before.ids)
