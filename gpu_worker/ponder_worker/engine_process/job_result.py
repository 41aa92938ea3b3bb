"""The parts of a job's result: choices, log-probabilities in OpenAI's form, the document of its tree, or its error."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ponder_worker.engine import EngineError
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import InvalidConversation
from ponder_worker.protocol import Choice, Document, JobError, JobResult
from ponder_worker.search.search import Search
from ponder_worker.search.search_error import InvalidRequest, SearchError
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import Node
from ponder_worker.search.tree.search_tree import SearchTree

EXPECTED = (SearchError, EngineError, InvalidConversation, ValidationError)
"""Errors that a request may bring about; everything else is a bug of ours."""


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


def as_choices(
    made: Made, tokenizer: Tokenizer, *, is_chat: bool = True, has_logprobs: bool = False
) -> tuple[Choice, ...]:
    """Returns the choices. is_chat: a thought is returned apart; else it is part of the text that was completed."""
    return tuple(
        Choice(
            text=candidate.said if is_chat else candidate.text,
            reasoning=candidate.thought if is_chat else None,
            answer=candidate.answer,
            finish_reason=_finish_reason(candidate),
            score=candidate.score,
            logprobs=_logprobs(candidate.node, tokenizer) if has_logprobs else None,
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
    document["rounds"] = list(search.rounds) if search is not None else []
    return document


def unreadable(job_id: int, error: Exception) -> JobResult:
    """Returns the result of a job whose documents could not even be read."""
    message = f"the request cannot be read: {type(error).__name__}"
    tree: Document = {"nodes": [], "candidates": [], "chosen": None}
    return JobResult(job_id, JobError(InvalidRequest.code, message), tree=tree)


def job_error(error: BaseException) -> JobError:
    match error:
        case SearchError():
            return JobError(error.code, str(error))
        case EngineError():
            return JobError(InvalidRequest.code, str(error))
        case InvalidConversation():
            return JobError("invalid_conversation", str(error))
        case ValidationError():
            fields = ", ".join(".".join(map(str, detail["loc"])) or "it" for detail in error.errors())
            return JobError(InvalidRequest.code, f"the request cannot be read: {fields}")
    return JobError("internal_error", f"{type(error).__name__} in the engine process; see the worker's log")


def _finish_reason(candidate: Candidate) -> str:
    return "stop" if candidate.is_complete else "length"


def _logprobs(leaf: Node, tokenizer: Tokenizer) -> Document | None:
    """Returns those of every token of the text, in OpenAI's form; None if there are none."""
    nodes = leaf.path()
    if not any(node.logprobs for node in nodes):
        return None
    content = []
    for node in nodes:
        tops = node.top_logprobs or [()] * len(node.ids)
        for token, logprob, top in zip(node.ids, node.logprobs, tops, strict=True):
            ranked = [_token(int(other), value, tokenizer) for other, value in top]
            content.append(_token(token, logprob, tokenizer) | {"top_logprobs": ranked})
    num_beyond = _num_beyond([token for node in nodes for token in node.ids], leaf.stop_chars, tokenizer)
    return {"content": content[: len(content) - num_beyond], "refusal": None}


def _token(token: int, logprob: float, tokenizer: Tokenizer) -> Document:
    return {"token": tokenizer.decode([token]), "logprob": logprob, "bytes": list(tokenizer.bytes_of(token))}


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
