"""The token streams of a tree's growing nodes, and the forced tokens that end or prolong a thought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ponder_worker.search.engine_port import EnginePort, Stream, StreamEnd, StreamRequest
from ponder_worker.search.expansion.confidence import ConfidenceRule, ConfidenceWatch
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.node import Node, child_seed
from ponder_worker.search.tree.search_tree import SearchTree

TakeBegun = Callable[[Node, StreamRequest, Callable[[StreamEnd], None]], tuple[Stream, StreamEnd | None] | None]
"""Returns a stream for the node that was begun before with this very request; None if there is none.

If the stream has already ended, its end is returned too and the callback is not called.
"""


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a node grows: up to and including the `separator`, or to the model's own end.

    A thought is closed by force at `thinking_tokens` in all. Where the model would end it earlier, that end is replaced
    by `wait_ids`, up to `num_waits` times.
    max_tokens: the node ends after so many, although its path may grow on.
    confidence: how the node's confidence is measured, and when it is stopped for the lack of it; None if it is not.
    judges, is_greedy: see `StreamRequest`.
    """

    separator: str | None = None
    thought: Thought | None = None
    thinking_tokens: int | None = None
    wait_ids: tuple[int, ...] = ()
    num_waits: int = 0
    max_tokens: int | None = None
    confidence: ConfidenceRule | None = None
    judges: bool = False
    is_greedy: bool = False


@dataclass(frozen=True, slots=True)
class _OpenStream:
    """A stream that a node grows by, and what it was asked for."""

    options: GenerationOptions
    max_tokens: int
    may_wait: bool
    stream: Stream
    watch: ConfidenceWatch | None


class Streams:
    """Owns the streams. How a node continues follows from its ids, so an interruption makes no difference to it.

    on_end: called once for each node that was started, when the tree has all its ids, but not if the node is cut off.
    on_low: called instead for a node whose confidence is too low to go on. It is to be cut off.
    """

    def __init__(
        self,
        tree: SearchTree,
        engine: EnginePort,
        take_begun: TakeBegun,
        on_end: Callable[[Node, StreamEnd], None],
        on_low: Callable[[Node], None],
    ) -> None:
        self._tree = tree
        self._engine = engine
        self._take_begun = take_begun
        self._on_end = on_end
        self._on_low = on_low
        self._growing: dict[int, _OpenStream] = {}
        self._num_former_ids = [len(node.ids) for node in tree.nodes]

    def start(self, node: Node, options: GenerationOptions) -> None:
        watch = ConfidenceWatch(options.confidence) if options.confidence is not None else None
        if watch is not None and watch.is_low(node.logprobs):  # the last attempt ended before it could stop the node
            self._give_up(node, watch)
            return
        limit = self._thought_limit(node, options)
        if limit is not None and limit <= len(node.ids):
            assert options.thought is not None
            self._tree.force(node, options.thought.closing_ids)
            limit = None
        may_wait = limit is not None and len(node.forced) < options.num_waits
        separator, max_tokens = options.separator, node.cap if limit is None else limit
        if may_wait and options.thought is not None and options.thought.close:
            separator = options.thought.close
        ids, turn_start = self._tree.ids_to(node), _turn_start(node)
        request = StreamRequest(
            ids,
            node.start,
            turn_start,
            max_tokens,
            node.seed,
            separator,
            self._num_former(node),
            len(node.prompt.ids),
            options.judges,
            options.is_greedy,
        )
        done = partial(self._end, node)
        stream, end = self._take_begun(node, request, done) or (self._engine.generate(request, done), None)
        self._growing[node.index] = _OpenStream(options, max_tokens, may_wait, stream, watch)
        if end is not None:
            self._end(node, end)

    def request_below(self, leaf: Node, options: GenerationOptions, cap: int) -> StreamRequest | None:
        """Returns what the leaf's first child would request; None if it begins in a thought, which may need closing."""
        ids, turn_start = self._tree.ids_to(leaf), _turn_start(leaf)
        prompt = leaf.prompt.ids
        if options.thought is not None and options.thought.measure(prompt, ids[turn_start:])[1]:
            return None
        seed, num_former = child_seed(leaf.seed, 0), self._num_former(leaf)
        return StreamRequest(ids, len(ids), turn_start, cap, seed, options.separator, num_former, len(prompt))

    def length(self, node: Node) -> int:
        growing = self._growing.get(node.index)
        return len(node.ids) if growing is None else len(growing.stream.tokens) - node.start

    def look(self) -> None:
        """Reports the nodes whose confidence has become too low. Must be called after each step."""
        for index, growing in list(self._growing.items()):
            if growing.watch is not None and index in self._growing:
                node = self._tree.nodes[index]
                self.sync(node)
                if growing.watch.is_low(node.logprobs[growing.watch.num_seen :]):
                    self._give_up(node, growing.watch)

    def cut_off(self, node: Node) -> None:
        """Moves what the node's stream has made into the tree and stops the stream."""
        self.sync(node)
        growing = self._growing.pop(node.index, None)
        if growing is not None:
            self._engine.cancel(growing.stream)

    def close(self) -> None:
        """Stops all streams and records nothing."""
        for growing in self._growing.values():
            self._engine.cancel(growing.stream)
        self._growing.clear()

    def sync(self, node: Node) -> None:
        """Moves what the node's stream has made so far into the tree."""
        growing = self._growing.get(node.index)
        if growing is None:
            return
        stream = growing.stream
        new = stream.tokens[node.start + len(node.ids) :]
        if new:
            self._tree.extend(node, new, stream.logprobs[-len(new) :], stream.top_logprobs[-len(new) :])

    def sync_all(self) -> None:
        for node in self._tree.growing:
            self.sync(node)

    def num_thinking_tokens(self, thought: Thought) -> int:
        """Returns how many ids are inside thoughts about the problem; the marks around a thought do not count."""
        prompt = self._tree.root.ids
        num = 0
        for node in self._tree.nodes[1:]:
            if node.stop != "forced" and not node.prompt.is_prompt:
                before = self._turn_before(node)
                num += thought.measure(prompt, before + node.ids)[0] - thought.measure(prompt, before)[0]
        return num

    def _give_up(self, node: Node, watch: ConfidenceWatch) -> None:
        self._tree.set_confidence(node, watch.confidence)
        self._on_low(node)

    def _end(self, node: Node, end: StreamEnd) -> None:
        self.sync(node)
        growing = self._growing.pop(node.index)
        options = growing.options
        is_at_limit = end.reason == "length" and growing.max_tokens < node.cap
        is_text = growing.may_wait and end.reason == "separator" and not self._has_thought(node, options)
        if (
            is_at_limit
            or is_text
            or (growing.may_wait and self._goes_on_thinking(node, options, end, growing.max_tokens))
        ):
            self.start(node, options)
            return
        if growing.watch is not None:
            growing.watch.is_low(node.logprobs[growing.watch.num_seen :])
            self._tree.set_confidence(node, growing.watch.confidence)
        self._on_end(node, end)

    def _thought_limit(self, node: Node, options: GenerationOptions) -> int | None:
        """Returns the node's length at which its thought must be closed; None if none is open or can be closed."""
        thought = options.thought
        if thought is None:
            return None
        before = self._turn_before(node)
        num_thought, is_open = thought.measure(node.prompt.ids, before + node.ids)
        latest = thought.latest_end(len(before) + node.cap)
        if not is_open or latest is None:
            return None
        limit = latest - len(before)
        if options.thinking_tokens is not None:
            limit = min(limit, len(node.ids) + options.thinking_tokens - num_thought)
        limit = max(len(node.ids), limit)
        return limit if limit + len(thought.closing_ids) < node.cap else None

    def _goes_on_thinking(self, node: Node, options: GenerationOptions, end: StreamEnd, limit: int) -> bool:
        """Replaces the end of a thought by the wait if there is room. Returns False if the node itself has ended."""
        thought = options.thought
        assert thought is not None
        if end.stop_chars or end.reason != ("separator" if thought.close else "stop"):
            return False
        drop = len(thought.close_ids) or 1
        has_room = len(node.ids) - drop + len(options.wait_ids) <= limit
        if has_room:
            self._tree.force(node, options.wait_ids, drop=drop)
        return has_room or bool(thought.close)

    def _has_thought(self, node: Node, options: GenerationOptions) -> bool:
        """Returns whether the node belongs to a sample that thinks. If not, the mark that stopped it is text."""
        assert options.thought is not None
        ids = self._turn_before(node) + node.ids
        return options.thought.span(node.prompt.ids, ids) is not None

    def _turn_before(self, node: Node) -> list[int]:
        """Returns the ids of the model's turn that come before this node."""
        return self._tree.ids_to(node)[_turn_start(node) : node.start]

    def _num_former(self, node: Node) -> int:
        """Returns how many tokens at the front of the node's path this attempt did not generate."""
        former = self._num_former_ids
        made = sum(former[step.index] for step in node.path() if step.index < len(former) and step.is_sampled)
        return len(node.prompt.ids) + made


def _turn_start(node: Node) -> int:
    """Returns where the model's turn that this node belongs to begins: after the last user turn on its path."""
    before = node.parent
    assert before is not None
    while before.parent is not None and before.is_sampled and before.stop != "forced":
        before = before.parent
    return before.start + len(before.ids)
