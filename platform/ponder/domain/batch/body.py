"""The body of an OpenAI chat completion request, as far as ponder honours it. Other fields are refused by name."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.batch.options import LineOptions
from ponder.domain.budget import ReasoningEffort
from ponder.domain.storable import JsonObject

KEPT = ("user", "store", "metadata", "service_tier")
"""Fields that are accepted and kept with the job, but change nothing."""

UNSUPPORTED = frozenset({
    "audio", "function_call", "functions", "logit_bias", "modalities", "moderation", "parallel_tool_calls",
    "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "stream",
    "stream_options", "tool_choice", "tools", "top_logprobs", "verbosity", "web_search_options",
})  # fmt: skip
"""OpenAI's fields that ponder cannot honour."""

_ASKS_NOTHING: dict[str, tuple[Any, ...]] = {
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
_CONTENT_TYPES = ("image_url", "input_audio", "file", "refusal")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _text(content: Any) -> Any:
    """Returns text as it is, and text parts joined."""
    if not isinstance(content, list):
        return content
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            named = kind if kind in _CONTENT_TYPES else "this type"
            raise PydanticCustomError(
                "unsupported_content",
                "part {index} is not a text part, and {named} is not supported",
                {"index": index, "named": named},
            )
        texts.append(part["text"])
    return "".join(texts)


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _is_nothing(value: Any) -> bool:
    return value is False or _is_empty(value)


def _nothing(value: Any) -> Any:
    return None if _is_nothing(value) else value


_Unsupported = Annotated[None, BeforeValidator(_nothing)]
"""A field that clients send although it asks for nothing. Any other value cannot be honoured."""


class Message(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text)]
    name: _Unsupported = None
    refusal: _Unsupported = None
    audio: _Unsupported = None
    tool_calls: _Unsupported = None
    tool_call_id: _Unsupported = None
    function_call: _Unsupported = None
    annotations: _Unsupported = None

    @model_validator(mode="before")
    @classmethod
    def _asked(cls, value: Any) -> Any:
        """Drops unknown fields that are empty, because clients send answers back with all their fields.

        An answer with neither text nor tool calls counts as empty text.
        """
        if not isinstance(value, dict):
            return value
        asked = {name: item for name, item in value.items() if name in cls.model_fields or not _is_empty(item)}
        calls_nothing = "tool_calls" in asked and _is_nothing(asked["tool_calls"])
        if asked.get("role") == "assistant" and asked.get("content", "") is None and calls_nothing:
            asked["content"] = ""
        return asked


def _stop(value: Any) -> Any:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else value


def _scalar(value: Any) -> Any:
    """Accepts numbers beside text, because they are common in data sets and harmless."""
    if isinstance(value, (dict, list)) or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("metadata", "metadata values must be text or numbers")
    return value


class SchemaFormat(_Part):
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    json_schema: JsonObject = Field(default={}, alias="schema")


class ResponseFormat(_Part):
    """The wanted form of an answer. `json_schema` and `json_object` are verified; `text` asks for nothing."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    @property
    def wanted_schema(self) -> JsonObject | None:
        if self.type == "json_object":
            return {"type": "object"}
        return self.json_schema.json_schema if self.type == "json_schema" and self.json_schema else None


class Body(_Part):
    """A request body. Every field may be null, which means the default."""

    model: str | None = Field(default=None, min_length=1, max_length=256)
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1_000)]], BeforeValidator(_stop), Field(max_length=4)
    ] = Field(default_factory=list)
    logprobs: bool | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Annotated[Any, BeforeValidator(_scalar)]] | None = Field(default=None, max_length=16)
    service_tier: str | None = None
    ponder: LineOptions | None = None


FIELDS = frozenset(Body.model_fields)


def asks_nothing(field: str, value: Any) -> bool:
    """Returns whether a field that ponder does not honour has a value that asks for nothing beyond what ponder does.

    An unknown field asks for nothing only if it is empty, because `false` may switch off a default.
    """
    if value == {} and field in _ASKS_WITH_DEFAULTS:
        return False
    if field not in UNSUPPORTED:
        return _is_empty(value)
    return _is_nothing(value) or value in _ASKS_NOTHING.get(field, ())
