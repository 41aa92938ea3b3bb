"""The page of a batch: how far it is, what it spends, its plots and its jobs, and what can be done about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.responses import Response, StreamingResponse

from ponder.api.job_list import Order, SortKey
from ponder.api.request_span import Traced
from ponder.api.routes.batches import cancel_batch, change_batch, get_batch, get_history, list_jobs, retry_batch
from ponder.api.routes.files import get_content
from ponder.api.routes.reports import cost
from ponder.api.services import Ponder, identifier
from ponder.console.batch_plots import batch_plots
from ponder.console.rendering import redirect, render
from ponder.console.session import Changing, SignedIn, Visitor
from ponder.domain.batch.refusal import explain
from ponder.domain.batch.submission import Change
from ponder.domain.money import NANODOLLARS
from ponder.domain.state import JobState, Verdict
from ponder.domain.storable import JsonObject, StorableText
from ponder.errors import InvalidInput, NotFound
from ponder.ledger.reporting import Selection

router = APIRouter(prefix="/batches/{batch_id}")

_ROWS = 50
_ERRORS = 50
_Dollars = Annotated[float, Field(ge=0, le=1e9)]
_Tokens = Annotated[int, Field(ge=0, lt=2**63)]


class PageQuery(BaseModel):
    """The query of the page: the fields of the form above its list of jobs, of which empty ones do not filter."""

    model_config = ConfigDict(frozen=True)

    search: Annotated[StorableText, Field(max_length=512)] | None = None
    match: Literal["prefix", "exact"] = "prefix"
    state: JobState | None = None
    verdict: Verdict | None = None
    level: Annotated[StorableText, Field(max_length=512)] | None = None
    min_tokens: _Tokens | None = None
    max_tokens: _Tokens | None = None
    min_dollars: _Dollars | None = None
    max_dollars: _Dollars | None = None
    sort: SortKey = "line"
    order: Order = "asc"
    after: Annotated[str, Field(max_length=100)] | None = None
    errors: Literal["first", "all"] = "first"

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value != ""} if isinstance(data, dict) else data

    def address(self, **changes: Any) -> str:
        """Returns the query of the same list with other fields, from its first page on unless `after` is given."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"after", "errors"}) | changes
        return f"?{urlencode(fields)}#jobs"

    @property
    def filters(self) -> bool:
        return bool(self.model_dump(exclude_defaults=True, exclude={"after", "sort", "order", "match", "errors"}))

    def jobs(self, batch_id: str, ponder: Ponder, visitor: Visitor) -> JsonObject:
        is_exact = self.match == "exact"
        return list_jobs(
            batch_id,
            ponder,
            visitor.viewed,
            limit=_ROWS,
            after=self.after,
            state=self.state,
            verdict=self.verdict,
            level=self.level,
            custom_id=self.search if is_exact else None,
            custom_id_prefix=None if is_exact else self.search,
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens,
            min_nanodollars=_nanodollars(self.min_dollars),
            max_nanodollars=_nanodollars(self.max_dollars),
            sort=self.sort,
            order=self.order,
        )


@router.get("")
def batch_page(
    batch_id: str,
    request: Request,
    ponder: Ponder,
    visitor: SignedIn,
    query: Annotated[PageQuery, Query()],
) -> Response:
    batch = get_batch(batch_id, ponder, visitor.viewed)
    jobs, problem = None, None
    try:
        jobs = query.jobs(batch_id, ponder, visitor)
    except (InvalidInput, NotFound) as error:
        problem = str(error)
    found = (batch["errors"] or {}).get("data", [])
    return render(
        request,
        "batch.html",
        visitor,
        batch=batch,
        plots=batch_plots(batch, get_history(batch_id, ponder, visitor.viewed)),
        jobs=jobs,
        problem=problem,
        query=query,
        states=list(JobState),
        verdicts=list(Verdict),
        errors=found if query.errors == "all" else found[:_ERRORS],
        num_errors=len(found),
    )


@router.get("/levels")
def levels(batch_id: str, request: Request, ponder: Ponder, visitor: SignedIn) -> Response:
    """Shows the cost by strategy and level. It is asked for by the page, which need not wait for it."""
    by = ("strategy", "level")
    of = (identifier(batch_id, "batch"),)
    rows = cost(ponder, visitor.viewed, Selection(by=by, tenant_id=visitor.viewed.tenant_id, batch_ids=of))
    if not rows["data"]:
        get_batch(batch_id, ponder, visitor.viewed)  # raises NotFound if there is none
    return render(request, "parts/levels.html", visitor, batch_id=batch_id, rows=rows["data"])


@router.get("/{which}.jsonl")
def download(batch_id: str, which: Literal["output", "errors"], ponder: Ponder, visitor: SignedIn) -> StreamingResponse:
    """Streams the output or error file."""
    batch = get_batch(batch_id, ponder, visitor.viewed)
    file_id = batch["output_file_id" if which == "output" else "error_file_id"]
    if file_id is None:
        raise NotFound(f"the batch has no file of {which} yet")
    return get_content(file_id, ponder, visitor.viewed)


@router.post("/pause")
def pause(batch_id: str, request: Request, ponder: Ponder, visitor: Changing) -> Response:
    _change(batch_id, {"paused": True}, ponder, visitor)
    return _done(request, "Paused", "Running jobs are handed back with all their tokens, and no other begins.")


@router.post("/resume")
def resume(batch_id: str, request: Request, ponder: Ponder, visitor: Changing) -> Response:
    _change(batch_id, {"paused": False}, ponder, visitor)
    return _done(request, "Resumed", "Its jobs go on where they stopped.")


@router.post("/confirm")
def confirm(batch_id: str, request: Request, ponder: Ponder, visitor: Changing) -> Response:
    """Says yes to the estimate of a pilot."""
    _change(batch_id, {"pilot": {"confirmed": True}}, ponder, visitor)
    return _done(request, "Confirmed", "The rest of the batch runs.")


@router.post("/budget")
def budget(
    batch_id: str,
    request: Request,
    ponder: Ponder,
    visitor: Changing,
    *,
    dollars: Annotated[float | None, Form()] = None,
    tokens: Annotated[int | None, Form()] = None,
) -> Response:
    """Changes the limits that are given and leaves the others."""
    given = {name: value for name, value in (("dollars", dollars), ("tokens", tokens)) if value is not None}
    if not given:
        raise InvalidInput("give dollars, tokens or both", param="dollars", code="missing_required_parameter")
    _change(batch_id, {"batch_budget": given}, ponder, visitor)
    return _done(request, "The budget is changed", "Waiting jobs go on as far as it allows.")


@router.post("/cancel")
def cancel(batch_id: str, request: Request, ponder: Ponder, visitor: Changing) -> Response:
    cancel_batch(batch_id, ponder, visitor.viewed)
    return _done(request, "Cancelled", "Workers drop what they hold within seconds. What has settled stays.")


@router.post("/retry")
def retry(batch_id: str, request: Request, ponder: Ponder, visitor: Changing, span: Traced) -> Response:
    """Leads to the new batch of the jobs that failed or expired."""
    return redirect(request, f"/batches/{retry_batch(batch_id, ponder, visitor.viewed, span)['id']}")


def _change(batch_id: str, wanted: JsonObject, ponder: Ponder, visitor: Visitor) -> None:
    try:
        body = Change.model_validate({"ponder": wanted})
    except ValidationError as error:
        raise explain(error) from None
    change_batch(batch_id, body, ponder, visitor.viewed)


def _done(request: Request, title: str, message: str) -> Response:
    """Tells what was done, and that the page should ask for itself again."""
    page = render(request, "parts/notice.html", title=title, message=message, is_bad=False)
    page.headers.update({"HX-Retarget": "#notice", "HX-Reswap": "innerHTML", "HX-Trigger": "ponder:stale"})
    return page


def _nanodollars(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * NANODOLLARS)
