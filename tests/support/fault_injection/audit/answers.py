"""The verdicts of the recorded answers, the tokens they used, and whether the trees behind them are whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fault_injection.audit.evidence import Evidence
from fault_injection.audit.lines import History
from fault_injection.workload import MAX_TOKENS, Line
from sqlalchemy import Connection, text

_WHOLE = re.compile(r"-?\d+")
_AT_A_TIME = 500
_TREES = text("""
    SELECT id, completion_tokens, tree, jobs.state FROM jobs JOIN usage ON usage.job_id = jobs.id
    LEFT JOIN search_trees ON search_trees.job_id = jobs.id WHERE id = ANY(:ids) ORDER BY id
""")
_DELTAS = text("SELECT job_id, delta FROM trail.deltas WHERE job_id = ANY(:ids) ORDER BY id")
Tree = list[dict[str, Any]]
"""Nodes with their parent, ordinal and ids. A judge's prompt has none: it is computed, not generated."""


def wrong_verdicts(histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[str]:
    for line, history in _pairs(histories, evidence):
        if history.job.state == "completed" and not _may_be(history.job.verdict, line, history.job.answer):
            yield f"{history.name}: {history.job.answer!r} for {line.reference} is {history.job.verdict}"


def walls_passed(connection: Connection, histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[str]:
    """The limits of the tokens of a line, and of a sample."""
    pairs = {history.job.id: (line, history) for line, history in _pairs(histories, evidence)}
    for row in _rows(connection, list(pairs)):
        line, history = pairs[row.id]
        if line.recipe.tokens is not None and row.completion_tokens > line.recipe.tokens:
            yield f"{history.name} used {row.completion_tokens} of {line.recipe.tokens} tokens"
        for nodes in _trees(row.tree).values() if row.tree is not None else ():
            if (longest := _longest(nodes)) > MAX_TOKENS:
                yield f"{history.name} has a sample of {longest} tokens"


def gaps(connection: Connection, histories: Mapping[str, list[History]]) -> Iterator[str]:
    """Whether all deltas of a job fold, and what was settled goes on from there."""
    names = {history.job.id: history.name for batch in histories.values() for history in batch}
    ids = list(names)
    for first in range(0, len(ids), _AT_A_TIME):
        some = ids[first : first + _AT_A_TIME]
        deltas: dict[int, list[dict[str, Any]]] = {job_id: [] for job_id in some}
        for row in connection.execute(_DELTAS, {"ids": some}):
            deltas[row.job_id].append(row.delta)
        for row in connection.execute(_TREES, {"ids": some}):
            trees = _trees(row.tree) if row.tree is not None else None
            if (gap := _gap(deltas[row.id], trees, row.completion_tokens)) is not None:
                yield f"{names[row.id]}: {gap}"


def _may_be(verdict: str | None, line: Line, answer: str | None) -> bool:
    """By plain arithmetic. Of an answer that is more than a whole number only a pass would be too much said.

    What a model says about an answer is its own affair.
    """
    verifier = line.recipe.verifier
    if answer is None:
        return verdict == "failed"
    match verifier["name"]:
        case "regex":
            return verdict == ("passed" if re.search(verifier["pattern"], answer) else "failed")
        case "contains":
            return verdict == ("passed" if any(part in answer for part in verifier["texts"]) else "failed")
        case "exact":
            return verdict == ("passed" if answer.strip() == line.reference else "failed")
        case "judge":
            return verdict in ("passed", "failed", "unverified")
    if _WHOLE.fullmatch(answer.strip()):
        return verdict == ("passed" if int(answer) == int(line.reference) else "failed")
    return verdict in ("failed", "unverified")


def _trees(document: Mapping[str, Any]) -> dict[int, Tree]:
    """Returns the tree of each step of a job."""
    return {step.get("step", 0): step["nodes"] for step in document.get("stages", [document])}


def _gap(deltas: list[dict[str, Any]], trees: dict[int, Tree] | None, num_tokens: int) -> str | None:
    by_step: dict[int, list[dict[str, Any]]] = {}
    for delta in deltas:
        by_step.setdefault(delta.get("step", 0), []).append(delta)
    if trees is None:
        num_told = 0
        for some in by_step.values():
            folded, gap = _folded(some)
            if gap is not None:
                return gap
            num_told += sum(len(node["ids"]) for node in folded[1:])
        return None if num_told == num_tokens else f"{num_told} tokens in its deltas, {num_tokens} on its bill"
    for number, tree in trees.items():
        if (gap := _gap_of_one(by_step.pop(number, []), tree)) is not None:
            return gap if len(trees) == 1 else f"step {number}: {gap}"
    if by_step:
        return f"steps {sorted(by_step)} were saved and did not settle"
    num_settled = sum(len(node["ids"]) for tree in trees.values() for node in tree[1:])
    return None if num_settled == num_tokens else f"{num_settled} tokens in its tree, {num_tokens} on its bill"


def _folded(deltas: list[dict[str, Any]]) -> tuple[Tree, str | None]:
    """Returns the tree that deltas make, or what keeps them from making one."""
    folded: Tree = [{"parent": -1, "ordinal": 0, "ids": []}]
    for delta in deltas:
        for row in delta.get("nodes", ()):
            is_begun = "parent" in row or "prompt" in row
            if row["node"] > len(folded) or (row["node"] == len(folded) and not is_begun):
                return folded, f"node {row['node']} was never begun, only {len(folded)} were"
            if row["node"] == len(folded):
                folded.append({"parent": row.get("parent", 0), "ordinal": row["ordinal"], "ids": []})
            node = folded[row["node"]]
            if not -1 <= node["parent"] < row["node"] or row.get("keep", 0) > len(node["ids"]):
                return folded, f"node {row['node']} goes on from what is not there"
            node["ids"] = node["ids"][: row.get("keep", len(node["ids"]))] + list(row.get("ids", ()))
    return folded, None


def _gap_of_one(deltas: list[dict[str, Any]], tree: Tree) -> str | None:
    folded, gap = _folded(deltas)
    if gap is not None:
        return gap
    if len(tree) < len(folded):
        return f"{len(folded)} nodes were saved, {len(tree)} settled"
    for index, (saved, settled) in enumerate(zip(folded, tree, strict=False)):
        if index and (saved["parent"], saved["ordinal"]) != (settled["parent"], settled["ordinal"]):
            return f"node {index} hangs elsewhere"
        if index and settled["ids"][: len(saved["ids"])] != saved["ids"]:
            return f"node {index} does not go on from what was saved of it"
    return None


def _longest(nodes: Tree) -> int:
    lengths: list[int] = []
    for node in nodes:
        lengths.append(len(node["ids"]) + (lengths[node["parent"]] if node["parent"] >= 0 else 0))
    return max(lengths)


def _rows(connection: Connection, ids: list[int]) -> Iterator[Any]:
    for first in range(0, len(ids), _AT_A_TIME):
        yield from connection.execute(_TREES, {"ids": ids[first : first + _AT_A_TIME]})


def _pairs(histories: Mapping[str, list[History]], evidence: Evidence) -> Iterator[tuple[Line, History]]:
    for submission in evidence.submissions:
        by_name = {history.job.custom_id: history for history in histories.get(submission.batch_id, ())}
        yield from ((line, by_name[line.custom_id]) for line in submission.lines if line.custom_id in by_name)
