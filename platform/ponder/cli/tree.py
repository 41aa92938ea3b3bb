"""Draws a search tree for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from rich.tree import Tree

from ponder.cli.console import out
from ponder.domain.tree.tree_shape import best_path, children_of, titled_trees, twins
from ponder.wire import Json

_MOST_CHILDREN = 12
_LONGEST_TEXT = 100
_LONGEST_PROBLEM = 600


@dataclass(frozen=True, slots=True)
class Drawing:
    """A tree with its scores. The way to the chosen answer and pruned nodes are marked.

    `nodes[0]` is the prompt. Every other node names its parent.
    """

    nodes: Sequence[Json]
    candidates: Sequence[Json]
    best: set[int]

    @classmethod
    def of(cls, document: Json) -> Drawing:
        return cls(document.get("nodes") or [{}], document.get("candidates") or [], best_path(document))

    def draw(self, title: str) -> Tree:
        """Draws the tree. Leaves of one parent with the same text are one line with their number."""
        children, best = children_of(self.nodes), self.best
        tree = Tree(Text(title, style="bold"), guide_style="dim")
        open_branches = [(0, tree)]
        while open_branches:
            index, branch = open_branches.pop()
            siblings = children[index]
            standing = twins(self.nodes, siblings, {child for child in siblings if children[child]} | best)
            counts = Counter(standing.values())
            shown = _shown(counts, self.nodes, best)
            for child in shown:
                open_branches.append((child, branch.add(self._label(child, child in best, counts[child]))))
            num_hidden = sum(counts.values()) - sum(counts[child] for child in shown)
            if num_hidden:
                branch.add(Text(f"… {num_hidden} more", style="dim"))
        return tree

    def _label(self, index: int, is_best: bool, count: int) -> Text:
        node = self.nodes[index]
        state = node.get("state")
        is_thrown_away = state in ("pruned", "cancelled")
        label = Text(no_wrap=True, overflow="ellipsis")
        label.append("✓ " if is_best else "✗ " if is_thrown_away else "  ", style="green" if is_best else "red dim")
        if node.get("score") is not None:
            label.append(f"{_score(node['score'])}  ", style="cyan" if not is_thrown_away else "cyan dim")
        label.append(
            _one_line(str(node.get("text") or "")), style="bold green" if is_best else "dim" if is_thrown_away else ""
        )
        for note in _notes(node):
            label.append(f"  ({note})", style="dim")
        if count > 1:
            label.append(f"  ×{count}", style="dim")
        for candidate in self.candidates:
            if candidate["node"] == index:
                score = (
                    ""
                    if candidate.get("score") is None or node.get("score") is not None
                    else f" {_score(candidate['score'])}"
                )
                answer = "no answer" if candidate.get("answer") is None else f"= {candidate['answer']}"
                label.append(f"  {answer}{score}", style="bold yellow" if is_best else "yellow")
        if node.get("stop") in ("length", "budget"):
            label.append(f"  (cut: {node['stop']})", style="red")
        if node.get("passed") is not None:
            label.append("  passed" if node["passed"] else "  failed", style="green" if node["passed"] else "red")
        if node.get("feedback"):
            label.append(f": {_one_line(str(node['feedback']))}", style="red")
        return label


def print_tree(job: Json) -> None:
    """Prints a job's problem and its search tree, with the legend."""
    console = out()
    console.print()
    console.print(_problem(job))
    for title, tree in titled_trees(job["strategy"], job["tree"]):
        console.print(Drawing.of(tree).draw(title))
    console.print(
        "✓ leads to the chosen answer, ✗ was pruned or stopped, ×3: generated three times, forced: not sampled; "
        "the numbers are scores",
        style="dim",
    )


def _problem(job: Json) -> str:
    """Returns the last message, shortened to a few lines."""
    request = job.get("request") or {}
    messages = request.get("messages") or [{"content": request.get("prompt")}]
    text = " ".join(str(messages[-1].get("content") or job["custom_id"]).split())
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[:_LONGEST_PROBLEM]} …"


def _notes(node: Mapping[str, Any]) -> list[str]:
    """Returns notes on what happened to a node, except its end at a limit."""
    stop, forced = node.get("stop"), node.get("forced") or ()
    notes = []
    if node.get("prompt"):
        notes.append("a judge is asked")
    elif stop == "forced":
        notes.append("the user's turn")
    elif forced:
        notes.append(f"forced ×{len(forced)}")
    if node.get("state") == "cancelled":
        notes.append("stopped: it was settled" if stop == "settled" else f"stopped: {stop}")
    if node.get("speculative"):
        notes.append("speculative")
    return notes


def _shown(children: Iterable[int], nodes: Sequence[Mapping[str, Any]], best: set[int]) -> list[int]:
    """Returns all children, or the most interesting ones, in the order in which they were made."""
    ordered = sorted(children, key=lambda index: int(nodes[index].get("ordinal", index)))
    if len(ordered) <= _MOST_CHILDREN:
        return ordered

    def interest(index: int) -> tuple[bool, float]:
        score = nodes[index].get("score")
        return (index in best, float("-inf") if score is None else float(score))

    kept = set(sorted(ordered, key=interest, reverse=True)[:_MOST_CHILDREN])
    return [index for index in ordered if index in kept]


def _score(score: float) -> str:
    return f"{round(score, 2) + 0.0:+.2f}"  # never -0.00


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    joined = " ⏎ ".join(lines)
    if len(joined) <= _LONGEST_TEXT:
        return joined
    return f"{joined[: _LONGEST_TEXT // 2].rstrip()} … {joined[-_LONGEST_TEXT // 2 :].lstrip()}"
