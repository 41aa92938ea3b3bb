"""The parts of a job's result: choices, log-probabilities in OpenAI's form, and the document of its tree."""

from __future__ import annotations

from dataclasses import dataclass

from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.protocol import Choice, Document
from ponder_worker.search.search import Search
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree


@dataclass(frozen=True, slots=True)
class Made:
    """The candidates of a search that has ended, the chosen one first.

    num_choices: how many of them the request asks for. ended_by: what ended the search early, if anything did.
    """

    ranked: tuple[Candidate, ...]
    num_choices: int
    ended_by: str | None

    @property
    def finish_reason(self) -> str:
        return self.ended_by or _finish_reason(self.ranked[0])


def as_choices(made: Made, tokenizer: Tokenizer) -> tuple[Choice, ...]:
    return tuple(
        Choice(
            text=candidate.text,
            answer=candidate.answer,
            finish_reason=_finish_reason(candidate),
            score=candidate.score,
            logprobs=_logprobs(candidate.node, tokenizer),
        )
        for candidate in made.ranked[: made.num_choices]
    )


def as_document(tree: SearchTree, search: Search | None, made: Made | None) -> Document:
    """Returns the whole tree as it is stored. `search` decodes its texts."""
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


def _logprobs(leaf: Node, tokenizer: Tokenizer) -> Document | None:
    """Returns those of every token of the text, in OpenAI's form; None if they were not kept."""
    nodes = leaf.path()
    if not any(node.logprobs for node in nodes):
        return None
    content = []
    for node in nodes:
        for token, logprob in zip(node.ids, node.logprobs, strict=True):
            text, utf8 = tokenizer.decode([token]), tokenizer.bytes_of(token)
            content.append({"token": text, "logprob": logprob, "bytes": list(utf8), "top_logprobs": []})
    num_beyond = _num_beyond([token for node in nodes for token in node.ids], leaf.stop_chars, tokenizer)
    return {"content": content[: len(content) - num_beyond], "refusal": None}


def _num_beyond(ids: list[int], stop_chars: int, tokenizer: Tokenizer) -> int:
    """Counts the tokens at the end that are not part of the text: the special token or stop string that ended it."""
    text = tokenizer.decode(ids)
    left = len(text[len(text) - stop_chars :].encode())
    num = 0
    for token in reversed(ids):
        left -= len(tokenizer.bytes_of(token))
        if left < 0:
            break
        num += 1
    return num
