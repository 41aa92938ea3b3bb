"""The page of a job: its question, its answer and why, what it cost, who worked on it, and its search tree."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ponder.api.routes.jobs import get_job, get_job_tree
from ponder.api.services import Ponder
from ponder.console.pages.job_tree import outline, tree_view
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.storable import JsonObject
from ponder.domain.tree.tree_shape import decision

router = APIRouter()

_MOST_NODES = 150
_ALL_NODES = 20_000
_LONGEST = 4_000
_WHOLE = 20_000_000
"""More characters than a request or an answer can have."""

_Shown = Annotated[str, Query(max_length=20, description="texts to show in full: question, answer, nodes")]


@router.get("/jobs/{job_id}")
def job_page(request: Request, ponder: Ponder, visitor: SignedIn, job_id: str, show: _Shown = "") -> Response:
    job = get_job(job_id, ponder, visitor.viewed)
    asked = job["request"] or {}
    view = tree_view(get_job_tree(job["id"], ponder, visitor.viewed), job)
    most = _ALL_NODES if show == "nodes" else _MOST_NODES
    for step in view["steps"]:
        step["outline"] = outline(step["nodes"], most)
        step["num_lines"] = sum("twin" not in row for row in step["nodes"][1:])
    return render(
        request,
        "job.html",
        visitor,
        job=job,
        view=view,
        most=most,
        asked=asked,
        messages=[_message(one) for one in _messages(asked)],
        longest=_WHOLE if show == "question" else _LONGEST,
        longest_answer=_WHOLE if show == "answer" else _LONGEST,
        budget=_budget(asked),
        decided={number: decision(one["decisions"]) for number, one in enumerate(job["stages"] or ())},
    )


def _messages(request: JsonObject) -> list[JsonObject]:
    if request.get("prompt") is not None:
        return [{"role": "prompt", "content": request["prompt"]}]
    return list(request.get("messages") or ())


def _message(message: JsonObject) -> JsonObject:
    """Returns a message as texts: its words, and what else is in it as readable JSON."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    words = [one if isinstance(one, str) else one.get("text") for one in parts if isinstance(one, str | dict)]
    rest = {name: value for name, value in message.items() if name not in ("role", "content", "name") and value}
    others = [one for one in parts if isinstance(one, dict) and "text" not in one]
    if others:
        rest["content"] = others
    return {
        "role": str(message.get("role", "")),
        "name": message.get("name"),
        "text": "\n".join(word for word in words if word),
        "rest": json.dumps(rest, indent=2, ensure_ascii=False) if rest else "",
    }


def _budget(request: JsonObject) -> list[tuple[str, Any]]:
    """Returns the limits that the job has, with their names."""
    told = request.get("budget") or {}
    names = {"tokens": "tokens", "tokens_per_sample": "tokens a sample", "thinking_tokens": "thinking tokens a sample"}
    names |= {"dollars": "dollars", "deadline_s": "seconds from submission"}
    return [(name, told[key]) for key, name in names.items() if told.get(key) is not None]
