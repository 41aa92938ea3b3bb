"""What the request document of a job means to the engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ponder_worker.engine import Sampling
from ponder_worker.engine_process.loading import Engines, SamplingDefaults
from ponder_worker.search.answer import extract, unfenced
from ponder_worker.search.errors import PromptTooLong


def messages(request: dict[str, Any]) -> list[dict[str, str]]:
    """Chat messages with their content as one text; parts of text are joined."""
    return [message | {"content": _text(message.get("content"))} for message in request["messages"]]


def sampling(request: dict[str, Any], defaults: SamplingDefaults) -> Sampling:
    """max_tokens and seed are each node's own and filled in later."""
    given = request["sampling"]
    return Sampling(
        max_tokens=1,
        temperature=_or(given.get("temperature"), defaults.temperature),
        top_p=_or(given.get("top_p"), defaults.top_p),
        top_k=defaults.top_k,
        presence_penalty=float(given.get("presence_penalty") or 0.0),
        frequency_penalty=float(given.get("frequency_penalty") or 0.0),
        stop_strings=tuple(given.get("stop") or ()),
    )


def room(engines: Engines, prompt_tokens: int, *, scores: bool) -> int:
    """Tokens that fit beside the prompt, in the reward model's context too. Raises PromptTooLong."""
    longest = engines.longest
    if scores and engines.same_tokens:
        longest = min(longest, engines.longest_scored)
    if prompt_tokens >= longest:
        raise PromptTooLong(f"the prompt has {prompt_tokens} tokens, and the model's context is {longest}")
    return min(longest - prompt_tokens, engines.defaults.max_tokens or longest)


def answer_of(request: dict[str, Any]) -> Callable[[str], str | None]:
    """A schema is asked of the whole text."""
    verifier = request.get("verifier") or {}
    return unfenced if verifier.get("name") == "json_schema" else extract


def _or(value: Any, default: float) -> float:
    return default if value is None else float(value)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return "" if content is None else str(content)
