"""The search tree of a job for the script that draws it, for people who read it as text, and for export."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from ponder.api.routes.jobs import get_job, get_job_tree
from ponder.api.services import Ponder
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.storable import JsonObject
from ponder.domain.tree.tree_shape import best_path, children_of, titled_trees, twins
from ponder.errors import NotFound

router = APIRouter()

_LONGEST = 240
"""Characters of a text in a tree. `node_page` has the whole one."""
_ENDS = (None, "stop", "separator")
_PUT_IN = ("forced", "inserted")


@router.get("/jobs/{job_id}/tree.json")
def tree_document(ponder: Ponder, visitor: SignedIn, job_id: str, *, export: bool = False) -> Response:
    """Returns the tree as the script draws it, or for export the API's own document with all texts and ids."""
    found = get_job_tree(job_id, ponder, visitor.viewed)
    if export:
        name = f'attachment; filename="{found["job_id"]}-tree.json"'
        return JSONResponse(found, headers={"Content-Disposition": name})
    return JSONResponse(tree_view(found, get_job(job_id, ponder, visitor.viewed)))


@router.get("/jobs/{job_id}/nodes/{index}")
def node_page(
    request: Request,
    ponder: Ponder,
    visitor: SignedIn,
    job_id: str,
    index: int,
    *,
    step: Annotated[int, Query(ge=0, description="the place of the tree among those of the job's steps")] = 0,
) -> Response:
    """Shows the whole text of a node."""
    found = get_job_tree(job_id, ponder, visitor.viewed)
    trees = titled_trees(found["strategy"], found["tree"] or {"nodes": []})
    nodes = trees[step][1].get("nodes", ()) if step < len(trees) else ()
    if not 0 <= index < len(nodes):
        raise NotFound("there is no such node", param="index")
    return render(request, "node.html", visitor, job=found, index=index, step=step, node=nodes[index])


def tree_view(found: JsonObject, job: JsonObject) -> JsonObject:
    """Returns what a picture of the tree shows of it.

    found: the API's tree. job: the API's job. Long texts are cut, and ids of tokens left out.
    """
    document = found["tree"]
    trees = titled_trees(found["strategy"], document) if document else []
    attempts = [
        {"name": f"attempt {number}", "machine": one["machine"], "market": one["market"], "worker": one["worker"]}
        | {"incarnation_id": one["incarnation_id"], "outcome": one["outcome"], "reason": one["reason"]}
        for number, one in enumerate(job["attempts"], start=1)
    ]
    return {
        "job_id": found["job_id"],
        "growing": found["growing"],
        "nanodollars": job["cost"]["direct_nanodollars"],
        "tokens": job["usage"]["completion_tokens"],
        "answered_by": document.get("answered_by") if document else None,
        "attempts": attempts,
        "steps": [{"title": title} | _Shown(tree, attempts).document() for title, tree in trees],
    }


class _Shown:
    """One tree, with what only the whole of it tells about a node."""

    def __init__(self, tree: JsonObject, attempts: Sequence[JsonObject]) -> None:
        self._nodes: list[JsonObject] = tree.get("nodes") or []
        self._best = best_path(tree) if self._nodes else set()
        self._rounds: Sequence[int] = tree.get("rounds", ())
        self._answers = {one["node"]: one.get("answer") for one in tree.get("candidates", ())}
        self._parts: Sequence[JsonObject] = tree.get("made_by", ())
        self._firsts = [part["first_node"] for part in self._parts]
        self._continued = [dict(part.get("continued", ())) for part in self._parts]
        self._attempts = {one["incarnation_id"]: place for place, one in reversed(list(enumerate(attempts)))}

    def document(self) -> JsonObject:
        children = children_of(self._nodes)
        standing: dict[int, int] = {}
        for siblings in children.values():
            standing |= twins(self._nodes, siblings, {one for one in siblings if children.get(one)} | self._best)
        times = Counter(standing.values())
        rows = [self._row(index) for index in range(len(self._nodes))]
        for index, row in enumerate(rows[1:], start=1):
            if standing[index] != index:
                row["twin"] = standing[index]
            elif times[index] > 1:
                row["times"] = times[index]
        for row in reversed(rows[1:]):  # a parent comes before its children
            row["below"] = row.get("below", 0) + row["tokens"]
            rows[row["parent"]]["below"] = rows[row["parent"]].get("below", 0) + row["below"]
        return {"nodes": rows, "rounds": len(self._rounds)}

    def _row(self, index: int) -> JsonObject:
        node = self._nodes[index]
        text = node.get("text")
        row: JsonObject = {"parent": node.get("parent", -1), "ordinal": node.get("ordinal", 0)}
        row |= {"tokens": node.get("tokens", 0), "state": _state(node), "notes": _notes(node)}
        row["text"] = text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        if text is not None and len(text) > _LONGEST:
            row["chars"] = len(text)
        told = {name: node.get(name) for name in ("score", "stop", "confidence", "passed", "feedback")}
        row |= {name: value for name, value in told.items() if value is not None}
        if "feedback" in row:
            row["feedback"] = str(row["feedback"])[: 4 * _LONGEST]
        if index in self._best:
            row["best"] = True
        if index in self._answers:
            answer = self._answers[index]
            row["answer"] = "no answer" if answer is None else str(answer)[:_LONGEST]
        if len(self._rounds) > 1 and node.get("parent") == 0:
            row["round"] = max(1, bisect_right(self._rounds, node.get("ordinal", 0)))
        if index > 0 and self._parts:
            row["by"] = list(self._makers(index))
        return row

    def _makers(self, index: int) -> Iterator[JsonObject]:
        """Yields the attempts that made a node, the first one from its token 0 on."""
        begun = max(0, bisect_right(self._firsts, index) - 1)
        for place in range(begun, len(self._parts)):
            at = 0 if place == begun else self._continued[place].get(index)
            if at is not None:
                yield {"attempt": self._attempts.get(self._parts[place]["incarnation_id"]), "from": at}


def _state(node: JsonObject) -> str:
    stop, state = node.get("stop"), node.get("state", "finished")
    if node.get("prompt"):
        return "question"
    if state == "finished" and stop in _PUT_IN:
        return "forced"
    return "cut" if state == "finished" and stop not in _ENDS else str(state)


def _notes(node: JsonObject) -> list[str]:
    notes = []
    if node.get("forced"):
        notes.append(f"forced ×{len(node['forced'])}")
    if node.get("speculative"):
        notes.append("speculative")
    return notes


def outline(nodes: Sequence[JsonObject], most: int) -> Iterator[tuple[str, int, Any]]:
    """Yields the nodes of a view as a nested list: ("node", index, row), and "open" and "close" around children."""
    children = children_of(nodes)
    num_shown = 0
    waiting: list[tuple[str, int]] = [("node", index) for index in reversed(children.get(0, []))]
    while waiting:
        what, index = waiting.pop()
        row = nodes[index]
        if what == "node" and ("twin" in row or num_shown >= most):
            continue
        yield what, index, row
        num_shown += what == "node"
        if what == "node":
            below = children.get(index, []) if num_shown < most else []
            waiting.append(("end", index))
            if below:
                waiting += [("close", index), *(("node", child) for child in reversed(below)), ("open", index)]
