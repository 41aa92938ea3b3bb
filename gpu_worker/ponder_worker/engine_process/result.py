"""What a search that has ended leaves: choices in OpenAI's form, and the tree's document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree


@dataclass(frozen=True, slots=True)
class Made:
    """ranked: the chosen candidate first. ended_by: what ended the search before its own end, if anything did."""

    ranked: tuple[Candidate, ...]
    num_choices: int
    ended_by: str | None

    @property
    def finish_reason(self) -> str:
        return self.ended_by or _finish_reason(self.ranked[0])


def as_choices(made: Made, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return [
        {
            "text": candidate.text,
            "answer": candidate.answer,
            "finish_reason": _finish_reason(candidate),
            "score": candidate.score,
            "logprobs": _logprobs(candidate.node, tokenizer),
        }
        for candidate in made.ranked[: made.num_choices]
    ]


def as_document(tree: SearchTree, search: Search | None, made: Made | None) -> dict[str, Any]:
    document = tree.document(lambda node: search.text(node) if search is not None else "")
    ranked = made.ranked if made else ()
    document["candidates"] = [
        {"node": candidate.node.index, "answer": candidate.answer, "score": candidate.score} for candidate in ranked
    ]
    document["chosen"] = 0 if ranked else None
    document["counts"] = dict(tree.counts)
    return document


def _finish_reason(candidate: Candidate) -> str:
    return "stop" if candidate.is_complete else "length"


def _logprobs(leaf: Node, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Of every token of the text, in OpenAI's form; None where they were not kept."""
    nodes = leaf.path()
    if not any(node.logprobs for node in nodes):
        return None
    content = []
    for node in nodes:
        for token, logprob in zip(node.ids, node.logprobs, strict=True):
            text, some = tokenizer.decode([token]), tokenizer.bytes_of(token)
            content.append({"token": text, "logprob": logprob, "bytes": list(some), "top_logprobs": []})
    num_beyond = _num_beyond([token for node in nodes for token in node.ids], leaf.stop_chars, tokenizer)
    return {"content": content[: len(content) - num_beyond], "refusal": None}


def _num_beyond(ids: list[int], stop_chars: int, tokenizer: Tokenizer) -> int:
    """Tokens at the end that are no part of the text: what ended it, be it a special token or a stop string."""
    text = tokenizer.decode(ids)
    left = len(text[len(text) - stop_chars :].encode())
    num = 0
    for token in reversed(ids):
        left -= len(tokenizer.bytes_of(token))
        if left < 0:
            break
        num += 1
    return num
