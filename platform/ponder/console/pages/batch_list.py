"""The page of all batches of a tenant."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from ponder.api.routes.batches import get_batch, list_batches
from ponder.api.routes.models import list_models
from ponder.api.services import Ponder
from ponder.console.rendering import render
from ponder.console.session import SignedIn
from ponder.domain.state import BatchState
from ponder.domain.storable import StorableText

router = APIRouter()

_ROWS = 50
_PROJECTED = 5
"""The most batches of a page that are projected. Each takes about as long as the rest of the page."""


class ListQuery(BaseModel):
    """The fields of the form above the list. Empty ones do not filter."""

    model_config = ConfigDict(frozen=True)

    search: Annotated[StorableText, Field(max_length=200)] | None = None
    state: BatchState | None = None
    model: Annotated[StorableText, Field(max_length=512)] | None = None
    since: date | None = None
    until: Annotated[date, Field(lt=date.max)] | None = None
    """The last day, in UTC. The end of the calendar has no next day."""
    after: Annotated[str, Field(max_length=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value != ""} if isinstance(data, dict) else data

    @property
    def is_filter(self) -> bool:
        return bool(self.model_dump(exclude_none=True, exclude={"after"}))

    def address(self, **changes: Any) -> str:
        """Returns the query of the same list with other fields, from its first page on unless `after` is given."""
        return f"/?{urlencode(self.model_dump(mode='json', exclude_none=True, exclude={'after'}) | changes)}"


@router.get("/")
def batch_list(request: Request, ponder: Ponder, visitor: SignedIn, query: Annotated[ListQuery, Query()]) -> Response:
    batches = list_batches(
        ponder,
        visitor.viewed,
        limit=_ROWS,
        after=query.after,
        state=query.state,
        model=query.model,
        search=query.search,
        since=None if query.since is None else query.since.isoformat(),
        until=None if query.until is None else (query.until + timedelta(days=1)).isoformat(),
    )
    running = [batch["id"] for batch in batches["data"] if batch["status"] == BatchState.IN_PROGRESS]
    return render(
        request,
        "batches.html",
        visitor,
        batches=batches,
        query=query,
        states=list(BatchState),
        models=[model["id"] for model in list_models(ponder, visitor.viewed)["data"]],
        projections={id: get_batch(id, ponder, visitor.viewed)["ponder"]["projection"] for id in running[:_PROJECTED]},
    )
