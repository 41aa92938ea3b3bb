"""The body of an OpenAI text completion request: a prompt that no chat template touches."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ponder.domain.batch.sampling_fields import MAX_TOP_LOGPROBS, SamplingFields
from ponder.domain.storable import JsonObject

_DEFAULT_TOKENS = 16
"""OpenAI's and vLLM's limit of a completion that names none."""


def _one(value: Any) -> Any:
    """Takes the prompt out of a list of one, and refuses more, because a line has one answer."""
    if not isinstance(value, list) or not value or isinstance(value[0], int):
        return value
    if len(value) > 1:
        raise PydanticCustomError(
            "prompts", "a line has one prompt, not {num}: give each a line of its own", {"num": len(value)}
        )
    return value[0]


def _text_or_ids(value: Any) -> Any:
    is_ids = isinstance(value, list) and all(type(token) is int and 0 <= token < 2**31 for token in value)
    if not value or not (is_ids or isinstance(value, str)):
        raise PydanticCustomError("prompt", "the prompt must be text or a list of token ids, and not empty")
    return value


class CompletionBody(SamplingFields):
    """A request body. Every field may be null, which means the default."""

    prompt_field: ClassVar[str] = "prompt"

    prompt: Annotated[str | list[int], BeforeValidator(_text_or_ids), BeforeValidator(_one)]
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens or _DEFAULT_TOKENS

    @property
    def prompt_size(self) -> tuple[int, str, int]:
        """How many tokens the prompt has at least, what those are, and how many characters."""
        return (1, "text", len(self.prompt)) if isinstance(self.prompt, str) else (len(self.prompt), "token ids", 0)

    def sampling(self) -> JsonObject:
        ranked = {"top_logprobs": self.logprobs} if self.logprobs else {}
        return super().sampling() | {"logprobs": self.logprobs is not None} | ranked

    def prompt_document(self) -> JsonObject:
        return {"prompt": self.prompt}
