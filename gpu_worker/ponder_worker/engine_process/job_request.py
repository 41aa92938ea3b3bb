"""Translates a job's request document into the engines' terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ponder.domain.verifier import VERIFIER, VERIFIER_NAMES, why_not_asked
from ponder_worker.answers.extraction import extract
from ponder_worker.answers.reading import letter, program, spoken, unfenced
from ponder_worker.engine import SamplingParams
from ponder_worker.engine_process.loading.engines import Engines, SamplingDefaults
from ponder_worker.protocol import Document
from ponder_worker.search.search_error import NoVerifier, PromptTooLong


def messages(request: Document) -> list[dict[str, str]]:
    """Returns the chat messages, each with its content as one text: parts of text are joined."""
    return [message | {"content": _text(message.get("content"))} for message in request["messages"]]


def sampling(request: Document, defaults: SamplingDefaults) -> SamplingParams:
    """Returns the sampling parameters. max_tokens and seed are filled in later, because every node has its own."""
    given = request["sampling"]
    return SamplingParams(
        max_tokens=1,
        temperature=_or(given.get("temperature"), defaults.temperature),
        top_p=_or(given.get("top_p"), defaults.top_p),
        top_k=defaults.top_k,
        presence_penalty=float(given.get("presence_penalty") or 0.0),
        frequency_penalty=float(given.get("frequency_penalty") or 0.0),
        stop_strings=tuple(given.get("stop") or ()),
    )


def room(engines: Engines, prompt_tokens: int, *, scores: bool) -> int:
    """Returns how many tokens fit after the prompt, in the reward model's context too. Raises PromptTooLong."""
    longest = engines.longest
    if scores and engines.same_tokens:
        longest = min(longest, engines.longest_scored)
    if prompt_tokens >= longest:
        raise PromptTooLong(f"the prompt has {prompt_tokens} tokens, and the model's context is {longest}")
    return min(longest - prompt_tokens, engines.defaults.max_tokens or longest)


def answer_of(request: Document) -> Callable[[str], str | None]:
    """Returns the function that reads an answer out of a text.

    Candidates are compared by what the job's verifier would read.
    """
    match (request.get("verifier") or {}).get("name"):
        case "json_schema":
            return unfenced
        case "regex" | "contains":
            return spoken
        case "choice":
            return letter
        case "python_tests":
            return program
    return extract


def check_verifier(request: Document) -> None:
    """Raises NoVerifier if the search may not ask the job's verifier."""
    reason = no_verifier(request)
    if reason is not None:
        raise NoVerifier(reason)


def no_verifier(request: Document) -> str | None:
    """Returns why the search may not ask the job's verifier; None if it may. Raises pydantic's ValidationError."""
    verifier = request.get("verifier")
    if verifier is not None and verifier.get("name") not in VERIFIER_NAMES:
        return f"this worker knows no verifier {verifier.get('name')!r}"
    return why_not_asked(
        None if verifier is None else VERIFIER.validate_python(verifier),
        has_reference=request.get("reference") is not None,
        oracle=bool(request.get("oracle")),
    )


def _or(value: Any, default: float) -> float:
    return default if value is None else float(value)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return "" if content is None else str(content)
