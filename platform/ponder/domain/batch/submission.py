"""The submission of a batch: OpenAI's body of `POST /v1/batches` and ponder's own object in it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.request import ENDPOINT
from ponder.domain.batch.window import window_s
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


def _window(written: str) -> str:
    try:
        window_s(written)
    except InvalidInput as error:
        raise PydanticCustomError("completion_window", "{message}", {"message": error.message}) from None
    return written


class Submission(StorableBody):
    """The body of a submission. `completion_window` is any duration from 1h to 14d."""

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: Literal["/v1/chat/completions"] = ENDPOINT
    completion_window: Annotated[str, Field(max_length=50), AfterValidator(_window)]
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        default=None, max_length=16
    )
    ponder: BatchOptions = BatchOptions()

    def sha256(self) -> bytes:
        """Returns a hash that depends on the request and not on how it was written."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).digest()
