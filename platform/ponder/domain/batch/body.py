"""The body of an OpenAI chat completion request, as far as ponder honours it. Other fields are refused by name."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.batch.sampling_fields import MAX_TOP_LOGPROBS, Part, SamplingFields
from ponder.domain.budget import TOKENS_BY_EFFORT, ReasoningEffort
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

_MAX_KWARGS_BYTES = 4_096
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template",
          "tokenize")  # fmt: skip
"""Variables that a chat template gets from elsewhere."""
_CONTENT_TYPES = ("image_url", "input_audio", "file", "refusal")


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


def is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def is_nothing(value: Any) -> bool:
    return value is False or is_empty(value)


def _nothing(value: Any) -> Any:
    return None if is_nothing(value) else value


_Unsupported = Annotated[None, BeforeValidator(_nothing)]
"""A field that clients send although it asks for nothing. Any other value cannot be honoured."""


_Thought = Annotated[str | None, BeforeValidator(lambda value: None if is_empty(value) else value)]


class Message(Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text)]
    reasoning_content: _Thought = None
    reasoning: _Thought = None
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
        if value.get("role") != "assistant" and (value.get("reasoning_content") or value.get("reasoning")):
            raise PydanticCustomError("reasoning", "only a message of the assistant has a thought (reasoning_content)")
        asked = {name: item for name, item in value.items() if name in cls.model_fields or not is_empty(item)}
        calls_nothing = "tool_calls" in asked and is_nothing(asked["tool_calls"])
        if asked.get("role") == "assistant" and asked.get("content", "") is None and calls_nothing:
            asked["content"] = ""
        return asked

    @property
    def thought(self) -> str:
        return self.reasoning_content or self.reasoning or ""

    def document(self) -> dict[str, str]:
        """Translates `developer`, OpenAI's newer word, to `system`, which chat templates know.

        A template that keeps the thoughts of former turns reads them from `reasoning_content`.
        """
        said = {"role": "system" if self.role == "developer" else self.role, "content": self.content}
        return said | {"reasoning_content": self.thought} if self.thought else said


def _kwargs(value: Any) -> Any:
    """Refuses what the template gets from elsewhere, and what would make rendering expensive."""
    for name in value if isinstance(value, dict) else ():
        if name in _GIVEN:
            raise PydanticCustomError(
                "template_kwargs", "{name} cannot be set here: it is not the template's own", {"name": name}
            )
    if isinstance(value, dict) and len(json.dumps(value)) > _MAX_KWARGS_BYTES:
        raise PydanticCustomError(
            "template_kwargs", "at most {most} bytes of JSON are allowed", {"most": _MAX_KWARGS_BYTES}
        )
    return value


class Body(SamplingFields):
    """A request body. Every field may be null, which means the default."""

    prompt_field: ClassVar[str] = "messages"

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: Annotated[JsonObject | None, BeforeValidator(_kwargs)] = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def most_tokens(self) -> int | None:
        limits = {limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None}
        if len(limits) > 1:
            raise InvalidInput(
                "max_tokens and max_completion_tokens differ: give only one",
                param="body.max_tokens",
                code="invalid_value",
            )
        return limits.pop() if limits else None

    @property
    def prompt_size(self) -> tuple[int, str, int]:
        """How many tokens the prompt has at least, what those are, and how many characters."""
        characters = sum(len(message.content) + len(message.thought) for message in self.messages)
        return len(self.messages), "messages", characters

    def sampling(self) -> JsonObject:
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput(
                "top_logprobs needs logprobs: set logprobs to true, or leave top_logprobs out",
                param="body.top_logprobs",
                code="invalid_value",
            )
        ranked = {"top_logprobs": self.top_logprobs} if self.top_logprobs else {}
        return super().sampling() | {"logprobs": bool(self.logprobs)} | ranked

    def prompt_document(self) -> JsonObject:
        """Returns the conversation and how its prompt is made. Raises InvalidInput for fields that contradict."""
        return {"messages": [message.document() for message in self.messages]} | self._template()

    def effort(self) -> JsonObject:
        tokens = TOKENS_BY_EFFORT.get(self.reasoning_effort or "")
        return {} if tokens is None else {"thinking_tokens": tokens, "tokens": tokens}

    def _template(self) -> JsonObject:
        continues, opens = bool(self.continue_final_message), self.add_generation_prompt
        if continues and opens:
            raise InvalidInput(
                "a turn is either opened or continued: leave out add_generation_prompt or continue_final_message",
                param="body.add_generation_prompt",
                code="invalid_value",
            )
        if continues and self.messages[-1].role != "assistant":
            raise InvalidInput(
                f"the last message is the {self.messages[-1].role}'s, and only the assistant's can be continued",
                param="body.continue_final_message",
                code="invalid_value",
            )
        kwargs = self._effort_kwargs() | (self.chat_template_kwargs or {})
        if not kwargs and not continues and opens is not False:
            return {}
        opens = not continues and opens is not False
        return {"template": {"kwargs": kwargs, "add_generation_prompt": opens, "continue_final_message": continues}}

    def _effort_kwargs(self) -> JsonObject:
        """Returns what vLLM's server tells a template about the effort."""
        effort = self.reasoning_effort
        return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}
