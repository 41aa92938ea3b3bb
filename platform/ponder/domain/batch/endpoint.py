"""The endpoints that a batch may name, the body of each, and OpenAI's fields that no body of ours has."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import ValidationError

from ponder.domain.batch.body import Body, is_empty, is_nothing
from ponder.domain.batch.completion_body import CompletionBody
from ponder.domain.batch.refusal import explain
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

Endpoint = Literal["/v1/chat/completions", "/v1/completions"]
CHAT: Endpoint = "/v1/chat/completions"
COMPLETIONS: Endpoint = "/v1/completions"
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)

AnyBody = Body | CompletionBody
_BODIES: dict[Endpoint, type[AnyBody]] = {CHAT: Body, COMPLETIONS: CompletionBody}
_FIELDS = {endpoint: frozenset(body.model_fields) for endpoint, body in _BODIES.items()}

_UNSUPPORTED = frozenset({
    "audio", "best_of", "echo", "function_call", "functions", "modalities", "moderation", "parallel_tool_calls",
    "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "stream",
    "stream_options", "suffix", "tool_choice", "tools", "verbosity", "web_search_options",
})  # fmt: skip
"""OpenAI's fields that ponder cannot honour."""
_REMEDIES = {
    "best_of": ": ask for the strategy best_of_n",
    "echo": ": the prompt is in the line itself",
    "stream": ": answers come in the batch's output file",
}

_ASKS_NOTHING: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "stream_options": ({"include_usage": False},),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
_ASKS_WITH_DEFAULTS = ("web_search_options",)
"""Fields for which an empty object asks for something, with every default."""


def read_body(body: JsonObject, endpoint: Endpoint) -> AnyBody:
    """Reads the body of a line. Raises InvalidInput, which names the field."""
    known = _FIELDS[endpoint]
    others = sorted(body.keys() - known)
    for name in others:
        if not _asks_nothing(name, body[name]):
            raise _refusal(name, endpoint)
    try:
        return _BODIES[endpoint].model_validate(
            {name: body[name] for name in body if name in known} if others else body
        )
    except ValidationError as error:
        raise explain(error, "body") from None


def _refusal(name: str, endpoint: Endpoint) -> InvalidInput:
    param = f"body.{name}"
    if name in _UNSUPPORTED:
        return InvalidInput(f"{name} is not supported{_REMEDIES.get(name, '')}", param=param, code="unsupported_field")
    other = next((other for other, fields in _FIELDS.items() if name in fields), None)
    if other is None:
        return InvalidInput(f"{param} is not a known field", param=param, code="unknown_field")
    return InvalidInput(f"{param} is a field of {other}, not of {endpoint}", param=param, code="unknown_field")


def _asks_nothing(field: str, value: Any) -> bool:
    """Returns whether a field that ponder does not honour has a value that asks for nothing beyond what ponder does.

    An unknown field asks for nothing only if it is empty, because `false` may switch off a default.
    """
    if value == {} and field in _ASKS_WITH_DEFAULTS:
        return False
    if field not in _UNSUPPORTED:
        return is_empty(value) or value in _ASKS_NOTHING.get(field, ())
    return is_nothing(value) or value in _ASKS_NOTHING.get(field, ())
