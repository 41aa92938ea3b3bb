"""Draws a search tree for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from rich.tree import Tree

from ponder.cli.console import out
from ponder.wire import Json

_MOST_CHILDREN = 12
_LONGEST_TEXT = 100
_LONGEST_PROBLEM = 600
_MEASURES = ("agreement", "probability")


@dataclass(frozen=True, slots=True)
class Drawing:
    """A tree with its scores. The way to the chosen answer and pruned nodes are marked.

    `nodes[0]` is the prompt. Every other node names its parent.
    """

    nodes: Sequence[Mapping[str, Any]]
    candidates: Sequence[Mapping[str, Any]]
    chosen: int | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Drawing:
        return cls(document.get("nodes") or [{}], document.get("candidates") or [], document.get("chosen"))

    def draw(self, title: str) -> Tree:
        """Draws the tree. Leaves of one parent with the same text are one line with their number."""
        children: dict[int, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes[1:], start=1):
            children[int(node.get("parent", 0))].append(index)
        best = self._best_path()
        tree = Tree(Text(title, style="bold"), guide_style="dim")
        open_branches = [(0, tree)]
        while open_branches:
            index, branch = open_branches.pop()
            counts = self._merged(children[index], {child for child in children[index] if children[child]} | best)
            shown = _shown(counts, self.nodes, best)
            for child in shown:
                open_branches.append((child, branch.add(self._label(child, child in best, counts[child]))))
            num_hidden = sum(counts.values()) - sum(counts[child] for child in shown)
            if num_hidden:
                branch.add(Text(f"… {num_hidden} more", style="dim"))
        return tree

    def _merged(self, children: Sequence[int], important: set[int]) -> dict[int, int]:
        """Returns how many children each shown one stands for, those with children or on the chosen path first."""
        counts: dict[int, int] = {}
        by_text: dict[str, int] = {}
        for child in sorted(children, key=lambda child: (child not in important, child)):
            text = str(self.nodes[child].get("text") or "").strip()
            twin = by_text.setdefault(text, child)
            if twin == child or child in important:
                counts[child] = 1
            else:
                counts[twin] += 1
        return counts

    def _best_path(self) -> set[int]:
        """Returns the chosen candidate's node and all nodes above it."""
        path: set[int] = set()
        index = int(self.candidates[self.chosen]["node"]) if self.chosen is not None else 0
        while index > 0 and index not in path:
            path.add(index)
            index = int(self.nodes[index].get("parent", 0))
        return path

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
    for title, tree in _trees(job):
        console.print(Drawing.of(tree).draw(title))
    console.print(
        "✓ leads to the chosen answer, ✗ was pruned or stopped, ×3: generated three times, forced: not sampled; "
        "the numbers are scores",
        style="dim",
    )


def _trees(job: Json) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the trees of a job with their titles: one, or one for each of several steps that has begun."""
    tree = job["tree"]
    if "stages" not in tree:
        return [(job["strategy"], tree)]
    trees = []
    for number, stage in enumerate(tree["stages"]):
        # Only the way to the job's answer is marked.
        is_chosen = number == tree["answered_by"]
        decided = decision(stage.get("decisions") or {})
        named = f"{stage['strategy']} on {stage['model']}" if "strategy" in stage else f"judged by {stage['model']}"
        title = f"stage {stage.get('stage', number)}: {named}{decided and f', {decided}'}"
        trees.append((title, stage if is_chosen else {**stage, "chosen": None}))
    return trees


def decision(decisions: Mapping[str, Any]) -> str:
    """Returns the words for what was decided in a step, and none if nothing was."""
    route = decisions.get("route") or {}
    if route.get("skipped"):
        if "confidence" not in route:
            return f"skipped: too seldom accepted ({route['chance']:.0%})"
        begun = f"ended after its first tokens, confidence {route['confidence']:.2f}"
        return f"{begun}: too seldom accepted ({route['chance']:.0%})"
    told, verdict = decisions.get("accept"), decisions.get("verdict")
    if told is None and verdict is not None:
        return f"votes: {verdict['votes'][0]} correct, {verdict['votes'][1]} wrong"
    if told is None:
        return ""
    if "error" in told:
        return f"not accepted: {told['error']}"
    said = "accepted" if told["accepted"] else "not accepted"
    measure = next((f"{name} {told[name]:.2f}" for name in _MEASURES if name in told), told["by"])
    chance = f", which is right with a chance of {told['chance']:.2f}" if "chance" in told else ""
    least = f" (needed: {told['threshold']:g})" if "threshold" in told else ""
    source = f", calibrated on {told['calibrated_on']}" if "calibrated_on" in told else ""
    return f"{said} by {measure}{chance}{least}{source}"


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
