"""The `ponder` object of a batch or a line, beside OpenAI's fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ponder.domain.batch.webhook_url import WebhookUrl
from ponder.domain.budget import BatchBudget, Budget
from ponder.domain.state import Lane
from ponder.domain.storable import StorableText
from ponder.domain.strategy import Strategy, read_name, read_tokens
from ponder.domain.structure import Structure
from ponder.domain.verifier import Verifier


def _reference(value: Any) -> Any:
    """Accepts numbers, because data sets hold expected answers as numbers too."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        raise PydanticCustomError("reference", "the reference must be text or a number")
    return value if value is None or isinstance(value, str) else str(value)


def lane(value: Any) -> Any:
    """Reads a lane's name."""
    names = [one.value for one in Lane]
    if value is not None and value not in names:
        raise PydanticCustomError("priority", "the priority must be one of {names}", {"names": ", ".join(names)})
    return value if value is None else Lane(value)


class LineOptions(BaseModel):
    """The `body.ponder` of a line. The batch's options fill in what it leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: Annotated[Strategy | None, BeforeValidator(read_name)] = None
    budget: Annotated[Budget | None, BeforeValidator(read_tokens)] = None
    verifier: Annotated[Verifier | None, BeforeValidator(read_name)] = None
    structure: Structure | None = None
    reference: Annotated[StorableText | None, BeforeValidator(_reference)] = Field(default=None, max_length=1_000_000)
    priority: Annotated[Lane | None, BeforeValidator(lane)] = None

    oracle: bool | None = None
    """Whether the search may ask a verifier that sees the reference. The default is no."""

    max_rounds: int | None = Field(default=None, ge=1, le=100)
    """How many times a job may try under the root of its tree while its verifier says no. The default is once."""


class Pilot(BaseModel):
    """A sample of the batch's jobs that runs first, to tell what the whole batch will cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    jobs: int = Field(ge=1, le=10_000)
    """How many jobs are drawn at random."""

    confirm: bool = False
    """Whether the batch then waits for its owner's yes."""


class BatchOptions(LineOptions):
    """The `ponder` object of a batch."""

    strict: bool = False
    """Whether one bad line fails the whole batch."""

    batch_budget: BatchBudget | None = None
    """The limits of all jobs together."""

    pilot: Pilot | None = None
    """The jobs that run before the others."""

    webhook: WebhookUrl | None = None
    """Where the batch's events go. The default is the tenant's webhook."""

    model: StorableText | None = Field(default=None, min_length=1, max_length=256)
    """The model that runs every line, whatever the line names."""
