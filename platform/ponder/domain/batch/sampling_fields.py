"""The fields that a chat completion and a text completion have in common: OpenAI's, and vLLM's beside them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ponder.domain.batch.options import LineOptions
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

MAX_TOP_LOGPROBS = 20
_ID = re.compile(r"[0-9]{1,9}")
_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_SENT = ("top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "logit_bias", "ignore_eos")
"""Fields that a job's request holds only if the line does."""


class Part(BaseModel):
    """A part of a request body. An unknown field is an error, and nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _stop(value: Any) -> Any:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else value


def _scalar(value: Any) -> Any:
    """Accepts numbers beside text, because they are common in data sets and harmless."""
    if isinstance(value, (dict, list)) or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("metadata", "metadata values must be text or numbers")
    return value


def _ids(value: Any) -> Any:
    """Refuses keys that are not token ids, because texts have to be tokenized by whoever knows the model."""
    for key in value if isinstance(value, dict) else ():
        if not isinstance(key, str) or _ID.fullmatch(key) is None:
            raise PydanticCustomError(
                "logit_bias", 'the keys must be ids of the model\'s tokens, as in {{"50256": -100}}'
            )
    return value


_Biases = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1_024), BeforeValidator(_ids)]


class SchemaFormat(Part):
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    json_schema: JsonObject = Field(default={}, alias="schema")


class ResponseFormat(Part):
    """The wanted form of an answer. `json_schema` and `json_object` are enforced and verified, with `strict: false`
    only verified; `text` asks for nothing.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    @property
    def wanted_schema(self) -> JsonObject | None:
        if self.type == "json_object":
            return {"type": "object"}
        return self.json_schema.json_schema if self.type == "json_schema" and self.json_schema else None

    @property
    def is_enforced(self) -> bool:
        strict = None if self.json_schema is None else self.json_schema.strict
        return self.wanted_schema is not None and strict is not False


class SamplingFields(Part):
    """A body without its prompt. Every field may be null, which means the default.

    `top_k` -1 and 0 are off, as in vLLM, and null is the model's own.
    """

    model: str | None = Field(default=None, min_length=1, max_length=256)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    min_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1_000)]], BeforeValidator(_stop), Field(max_length=4)
    ] = Field(default_factory=list)
    stop_token_ids: list[_TokenId] | None = Field(default=None, max_length=128)
    ignore_eos: bool | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    logit_bias: _Biases | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Annotated[Any, BeforeValidator(_scalar)]] | None = Field(default=None, max_length=16)
    service_tier: str | None = None
    ponder: LineOptions | None = None

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of one sample. Raises InvalidInput for a contradiction."""
        return self.max_tokens

    def sampling(self) -> JsonObject:
        """Returns how a job samples, as the worker reads it. Raises InvalidInput for fields that contradict."""
        most = self.most_tokens
        if most is not None and self.min_tokens is not None and self.min_tokens > most:
            raise InvalidInput(
                f"min_tokens is {self.min_tokens}, but a sample has {most} tokens at most (max_tokens)",
                param="body.min_tokens",
                code="invalid_value",
            )
        sent = {name: value for name in _SENT if (value := getattr(self, name)) is not None}
        if "top_k" in sent:
            sent["top_k"] = max(0, sent["top_k"])
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": most,
            "stop": self.stop,
            "seed": self.seed,
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            **sent,
        }
