"""The submission of a batch, OpenAI's body of `POST /v1/batches` with ponder's own object in it, and its changes."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.batch.endpoint import CHAT, Endpoint
from ponder.domain.batch.options import BatchOptions, lane
from ponder.domain.batch.window import window_s
from ponder.domain.budget import BatchBudget
from ponder.domain.state import Lane
from ponder.domain.storable import fault
from ponder.errors import InvalidInput


class StorableBody(BaseModel):
    """A JSON body that can be stored in full."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _is_storable(cls, data: Any) -> Any:
        found = fault(data)
        if found:
            raise PydanticCustomError(
                "unstorable", "{path} {reason}", {"path": found.path or "the body", "reason": found.reason}
            )
        return data


def _window(written: str | None) -> str | None:
    try:
        window_s(written or "24h")
    except InvalidInput as error:
        raise PydanticCustomError("completion_window", "{message}", {"message": error.message}) from None
    return written


class OutputExpiry(BaseModel):
    """OpenAI's `output_expires_after`: how long results are kept after the batch has ended. OpenAI allows 30 days."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    anchor: Literal["created_at"]
    """The creation of the output file, which is the end of the batch."""
    seconds: int = Field(ge=3_600, le=10 * 366 * 86_400)


class Submission(StorableBody):
    """The body of a submission. `completion_window` is any duration from 1h to 14d."""

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: Endpoint = CHAT
    completion_window: Annotated[str, Field(max_length=50), AfterValidator(_window)]
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        default=None, max_length=16
    )
    output_expires_after: OutputExpiry | None = None
    ponder: BatchOptions = BatchOptions()

    def sha256(self) -> bytes:
        """Returns a hash that depends on the request and not on how it was written."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).digest()


class Confirmation(BaseModel):
    """The owner's yes to the estimate of a pilot. It can be repeated, and cannot be taken back."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    confirmed: Literal[True]


class ChangedOptions(BaseModel):
    """The `ponder` object of a change. A limit that is null is lifted; one that is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    batch_budget: BatchBudget | None = None
    paused: bool | None = None
    pilot: Confirmation | None = None
    priority: Annotated[Lane | None, BeforeValidator(lane)] = None

    def limits(self, tokens: int | None, nanodollars: int | None) -> dict[str, int | None]:
        """Returns the new limits in place of those given."""
        if "batch_budget" not in self.model_fields_set:
            return {"limit_tokens": tokens, "limit_nanodollars": nanodollars}
        budget = self.batch_budget or BatchBudget(tokens=None, dollars=None)
        limit_tokens, limit_nanodollars = budget.replacing(tokens, nanodollars)
        return {"limit_tokens": limit_tokens, "limit_nanodollars": limit_nanodollars}


class Change(StorableBody):
    """The body of `PATCH /v1/batches/{id}`. What is left out stays. `completion_window` counts from the submission."""

    completion_window: Annotated[str | None, Field(max_length=50), AfterValidator(_window)] = None
    ponder: ChangedOptions = ChangedOptions()
